//! JSON that is read strictly: no member twice, nothing after the end, not nested deeply, not
//! too many values. RFC 7515, 5.2 wants the same of headers (I-JSON), and RFC 7519, 4 of claims.

use std::cell::Cell;
use std::fmt;

use serde::Deserializer;
use serde::de::{DeserializeSeed, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

/// How much may be read.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    /// Lists and objects in each other, the outermost included.
    pub depth: usize,
    /// Values in all, those in lists and objects included.
    pub values: usize,
}

/// An object, and how many values it holds in all.
#[derive(Debug)]
pub(super) struct Read {
    pub object: Map<String, Value>,
    pub values: usize,
}

/// Reads an object.
///
/// # Errors
/// What is wrong with the text, without quoting it.
pub(super) fn object(text: &[u8], bounds: Bounds) -> Result<Read, serde_json::Error> {
    let mut input = serde_json::Deserializer::from_slice(text);
    let values = Cell::new(0);
    let strict = Strict { depth: bounds.depth, most: bounds.values, values: &values };
    let value = strict.deserialize(&mut input)?;
    input.end()?;
    match value {
        Value::Object(object) => Ok(Read { object, values: values.get() }),
        _ => Err(serde_json::Error::custom("is not an object")),
    }
}

/// Reads one value. Copies share the count.
#[derive(Clone, Copy)]
struct Strict<'c> {
    depth: usize,
    most: usize,
    values: &'c Cell<usize>,
}

impl Strict<'_> {
    fn deeper<E: Error>(self) -> Result<Self, E> {
        match self.depth.checked_sub(1) {
            Some(depth) => Ok(Strict { depth, ..self }),
            None => Err(E::custom("is nested too deeply")),
        }
    }
}

impl<'de> DeserializeSeed<'de> for Strict<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, input: D) -> Result<Value, D::Error> {
        self.values.set(self.values.get() + 1);
        if self.values.get() > self.most {
            return Err(D::Error::custom("has too many values"));
        }
        input.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Strict<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E: Error>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<Value, E> {
        Ok(Value::from(value))
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<Value, E> {
        Ok(Value::from(value))
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Value, E> {
        Number::from_f64(value).map(Value::Number).ok_or_else(|| E::custom("is not finite"))
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<Value, E> {
        Ok(Value::String(value.to_owned()))
    }

    fn visit_string<E: Error>(self, value: String) -> Result<Value, E> {
        Ok(Value::String(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let each = self.deeper()?;
        let mut list = Vec::new();
        while let Some(item) = items.next_element_seed(each)? {
            list.push(item);
        }
        Ok(Value::Array(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Value, A::Error> {
        let each = self.deeper()?;
        let mut object = Map::new();
        while let Some(name) = members.next_key::<String>()? {
            let value = members.next_value_seed(each)?;
            if object.insert(name, value).is_some() {
                return Err(A::Error::custom("has a member twice"));
            }
        }
        Ok(Value::Object(object))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Read, serde_json::Error> {
        object(text.as_bytes(), Bounds { depth: 4, values: 8 })
    }

    #[test]
    fn plain_json_is_read_as_it_is() {
        let text = r#"{"a":[1,-2,1.5],"b":{"c":null},"d":"é"}"#;
        let read = read(text).unwrap();
        let expected: Value = serde_json::from_str(text).unwrap();
        assert_eq!(Value::Object(read.object), expected);
        assert_eq!(read.values, 8);
    }

    #[test]
    fn what_could_be_read_in_two_ways_is_not_read() {
        for text in [
            r#"{"a":1,"a":1}"#,
            r#"{"a":1,"\u0061":2}"#,
            r#"{"x":{"a":1,"a":2}}"#,
            r#"{"x":[{"a":1,"a":2}]}"#,
            r#"{"a":1} {"a":2}"#,
            r#"{"a":1}x"#,
            r#"[{"a":1}]"#,
            r#"{"a":1e400}"#,
            r#"{"a":NaN}"#,
            r#"{"a":Infinity}"#,
            r#"{"a":01}"#,
            r#"{"a":"\ud800"}"#,
            r#"{'a':1}"#,
            r#"{a:1}"#,
            r#"{"a":1,}"#,
            "\u{feff}{\"a\":1}",
            "null",
            "",
        ] {
            assert!(read(text).is_err(), "{text}");
        }
        assert!(object(b"{\"a\":\"\xff\"}", Bounds { depth: 4, values: 8 }).is_err());
    }

    #[test]
    fn depth_and_number_are_bounded() {
        assert!(read(r#"{"a":{"a":{"a":{}}}}"#).is_ok());
        assert!(read(r#"{"a":{"a":{"a":{"a":{}}}}}"#).is_err());
        assert!(read(r#"{"a":[[[[]]]]}"#).is_err());
        assert!(read(r#"{"a":[1,2,3,4,5,6]}"#).is_ok());
        assert!(read(r#"{"a":[1,2,3,4,5,6,7]}"#).is_err());
    }
}
