//! HTTPRoute `retry` (GEP-1731): how often a request is tried again, and for which answers.

use std::time::Duration;

use crate::api::gateway::HttpRouteRetry;
use crate::graph::Retry;
use crate::policy::duration;

/// Most further tries: each may be a connection to another endpoint, for one request.
const MAX_ATTEMPTS: u32 = 100;
/// The longest pause that may be asked for; the request waits in memory for so long.
const MAX_BACKOFF: Duration = Duration::from_secs(60);

/// Reads the field. No attempts stay what they are: they switch off what is tried again without
/// the field, too.
///
/// # Errors
/// The field below, and a message for the user.
pub(super) fn read(spec: &HttpRouteRetry) -> Result<Retry, (&'static str, String)> {
    let codes: Result<Vec<u16>, _> = spec.codes.iter().map(|code| code_of(*code)).collect();
    let mut codes = codes?;
    codes.sort_unstable();
    codes.dedup();
    let attempts = spec.attempts.unwrap_or(1);
    let attempts =
        u32::try_from(attempts).ok().filter(|n| *n <= MAX_ATTEMPTS).ok_or_else(|| {
            ("attempts", format!("{attempts} is out of bounds; use 0 to {MAX_ATTEMPTS}"))
        })?;
    let backoff = spec.backoff.as_deref().map(duration::parse).transpose();
    let backoff = backoff.map_err(|message| ("backoff", message))?.unwrap_or_default();
    if backoff > MAX_BACKOFF {
        let most = MAX_BACKOFF.as_secs();
        return Err(("backoff", format!("is too long to keep a request; use at most {most}s")));
    }
    Ok(Retry { codes, attempts, backoff })
}

fn code_of(code: i32) -> Result<u16, (&'static str, String)> {
    let known = u16::try_from(code).ok().filter(|code| (400..600).contains(code));
    known.ok_or_else(|| ("codes", format!("{code} is not the code of an error; use 400 to 599")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(codes: &[i32], attempts: Option<i64>, backoff: Option<&str>) -> HttpRouteRetry {
        let backoff = backoff.map(str::to_owned);
        HttpRouteRetry { codes: codes.to_vec(), attempts, backoff }
    }

    #[test]
    fn one_further_try_is_the_default_and_zero_is_none_at_all() {
        let retry = read(&spec(&[503, 500, 503], None, Some("100ms")));
        let backoff = Duration::from_millis(100);
        assert_eq!(retry, Ok(Retry { codes: vec![500, 503], attempts: 1, backoff }));
        assert_eq!(read(&spec(&[500], Some(0), None)).unwrap().attempts, 0);
        assert_eq!(read(&spec(&[], Some(100), None)).unwrap().attempts, 100);
    }

    #[test]
    fn what_is_out_of_bounds_is_told_with_its_field() {
        for (spec, field) in [
            (spec(&[200], None, None), "codes"),
            (spec(&[600], None, None), "codes"),
            (spec(&[], Some(101), None), "attempts"),
            (spec(&[], Some(-1), None), "attempts"),
            (spec(&[], None, Some("soon")), "backoff"),
            (spec(&[], None, Some("61s")), "backoff"),
        ] {
            assert_eq!(read(&spec).map_err(|(field, _)| field), Err(field), "{spec:?}");
        }
    }
}
