//! The slots of a Redis Cluster: of a key, and of a node (`CLUSTER SLOTS`).

use redis::Value;

use super::config::Address;
use crate::services::store::Check;

/// Slots of a Cluster.
pub const SLOTS: u16 = 16_384;

/// Slots `first` to `last` are this node's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Range {
    pub first: u16,
    pub last: u16,
    pub master: Address,
}

impl Range {
    /// A tag whose slot is one of the range.
    pub fn tag(&self) -> String {
        let inside = |tag: &String| (self.first..=self.last).contains(&slot_of(tag));
        // Numbers are spread over all slots: of so many, every single slot has some.
        let mut tags = (0..u32::from(SLOTS) * 64).map(|n| n.to_string());
        tags.find(inside).unwrap_or_default()
    }
}

/// What a check's key has in braces: never empty, and without a brace that would end it early.
pub fn tag_of(check: &Check) -> &str {
    let tag = check.tag.split('}').next().unwrap_or_default();
    if tag.is_empty() { "-" } else { tag }
}

/// The slot of all keys with this hash tag.
pub fn slot_of(tag: &str) -> u16 {
    crc16::State::<crc16::XMODEM>::calculate(tag.as_bytes()) % SLOTS
}

/// Reads the answer to `CLUSTER SLOTS`, in order. A node that does not know its own name is the
/// one that was `asked`. Nothing if it is something else.
pub fn ranges(answer: Value, asked: &Address) -> Option<Vec<Range>> {
    let Value::Array(entries) = answer else { return None };
    let mut ranges = entries.iter().map(|e| range(e, asked)).collect::<Option<Vec<_>>>()?;
    ranges.sort_by_key(|range| range.first);
    Some(ranges)
}

fn range(entry: &Value, asked: &Address) -> Option<Range> {
    let Value::Array(parts) = entry else { return None };
    let [first, last, Value::Array(master), ..] = &parts[..] else { return None };
    let [host, port, ..] = &master[..] else { return None };
    let host = match host {
        Value::BulkString(host) => std::str::from_utf8(host).ok()?,
        _ => "",
    };
    let host = if matches!(host, "" | "?") { &asked.host } else { host };
    let (first, last) = (number(first)?, number(last)?);
    let is_range = first <= last && last < SLOTS;
    let master = Address { host: host.to_owned(), port: number(port)? };
    is_range.then_some(Range { first, last, master })
}

fn number(value: &Value) -> Option<u16> {
    match value {
        Value::Int(n) => u16::try_from(*n).ok(),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slot_is_that_of_the_specification() {
        assert_eq!(slot_of("123456789"), 0x31c3 % SLOTS);
        assert_eq!(slot_of("user1000"), 3443);
    }

    #[test]
    fn a_tag_is_found_for_every_range() {
        let master: Address = "a:1".parse().unwrap();
        for (first, last) in [(0, 5460), (16_383, 16_383), (7, 7)] {
            let range = Range { first, last, master: master.clone() };
            assert!((first..=last).contains(&slot_of(&range.tag())));
        }
    }

    #[test]
    fn a_map_is_read_in_order_and_nothing_else_is() {
        let asked: Address = "seed:7000".parse().unwrap();
        let node = |host: &str, port| {
            Value::Array(vec![
                Value::BulkString(host.into()),
                Value::Int(port),
                Value::BulkString("id".into()),
            ])
        };
        let entry =
            |first, last, node| Value::Array(vec![Value::Int(first), Value::Int(last), node]);
        let map = vec![entry(5, 16_383, node("10.0.0.2", 2)), entry(0, 4, node("", 1))];
        let read = ranges(Value::Array(map), &asked).unwrap();
        let masters: Vec<_> =
            read.iter().map(|r| (r.first, r.last, r.master.to_string())).collect();
        assert_eq!(masters, [(0, 4, "seed:1".into()), (5, 16_383, "10.0.0.2:2".into())]);
        for wrong in [entry(4, 0, node("a", 1)), entry(0, 16_384, node("a", 1)), Value::Nil] {
            assert_eq!(ranges(Value::Array(vec![wrong]), &asked), None);
        }
        assert_eq!(ranges(Value::Nil, &asked), None);
    }
}
