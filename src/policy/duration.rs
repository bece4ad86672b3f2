//! Durations as Gateway API writes them (GEP-2257): `1h30m`, `500ms`, `0s`.

use std::time::Duration;

/// The schema's pattern for a duration.
pub const PATTERN: &str = "^([0-9]{1,5}(h|m|s|ms)){1,4}$";

/// Parses a duration: one to four numbers of at most five digits, each with its unit. The
/// error says what is wrong and what would be right.
pub fn parse(text: &str) -> Result<Duration, String> {
    let wrong = || format!("{text:?} is not a duration; write it like 500ms, 10s or 1h30m");
    let mut rest = text;
    let mut total = Duration::ZERO;
    for _ in 0..4 {
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        let unit_end = rest[digits..].find(|c: char| c.is_ascii_digit());
        let (number, tail) = rest.split_at(digits);
        let (unit, tail) = tail.split_at(unit_end.unwrap_or(tail.len()));
        if !(1..=5).contains(&digits) {
            return Err(wrong());
        }
        let number: u64 = number.parse().map_err(|_| wrong())?;
        total += match unit {
            "h" => Duration::from_secs(number * 3600),
            "m" => Duration::from_secs(number * 60),
            "s" => Duration::from_secs(number),
            "ms" => Duration::from_millis(number),
            _ => return Err(wrong()),
        };
        rest = tail;
        if rest.is_empty() {
            return Ok(total);
        }
    }
    Err(wrong())
}

/// The same, or a number of at most two digits of days: `31d`.
pub fn parse_with_days(text: &str) -> Result<Duration, String> {
    let days = text
        .strip_suffix('d')
        .filter(|days| days.len() <= 2 && days.bytes().all(|byte| byte.is_ascii_digit()));
    match days.and_then(|days| days.parse::<u64>().ok()) {
        Some(days) => Ok(Duration::from_hours(days * 24)),
        None => parse(text).map_err(|_| {
            format!("{text:?} is not a duration; write it like 500ms, 10s, 1h30m or 31d")
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_of_gateway_api_are_read() {
        for (text, millis) in [
            ("0s", 0),
            ("500ms", 500),
            ("1s", 1000),
            ("1h30m10s5ms", 5_410_005),
            ("99999s", 99_999_000),
        ] {
            assert_eq!(parse(text), Ok(Duration::from_millis(millis)), "{text}");
        }
    }

    #[test]
    fn days_are_read_where_they_are_meant() {
        assert_eq!(parse_with_days("31d"), Ok(Duration::from_hours(31 * 24)));
        assert_eq!(parse_with_days("1h30m"), parse("1h30m"));
        for text in ["d", "100d", "1d1h", "+1d", "-1d"] {
            assert!(parse_with_days(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn other_text_is_not_a_duration() {
        for text in ["", "1", "s", "1.5s", "-1s", "100000s", "1d", "1s1s1s1s1s", "1s ", "1é2s"] {
            assert!(parse(text).is_err(), "{text:?}");
        }
    }
}
