//! As much of an HTTP/1.1 answer as a load client has to know: the status and where it ends.

use anyhow::{Context, Result, bail};
use memchr::memmem;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    pub status: u16,
    /// Of the head, with its empty line.
    pub bytes: usize,
    pub body: u64,
}

/// None: more bytes are needed.
pub fn head(bytes: &[u8]) -> Result<Option<Head>> {
    let Some(end) = memmem::find(bytes, b"\r\n\r\n") else {
        return Ok(None);
    };
    let text = std::str::from_utf8(&bytes[..end]).context("the head is not text")?;
    let status = text
        .get(9..12)
        .and_then(|code| code.parse().ok())
        .with_context(|| format!("no status in {text:?}"))?;
    let body = match field(text, "content-length") {
        Some(length) => length.parse().context("Content-Length is no number")?,
        None if status < 200 || status == 204 || status == 304 => 0,
        None => bail!("an answer without Content-Length: {text:?}"),
    };
    Ok(Some(Head { status, bytes: end + 4, body }))
}

/// The value of the first field of this name, in lower case, of a head.
pub fn field<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    head.split("\r\n").skip(1).find_map(|line| {
        let (found, value) = line.split_once(':')?;
        found.eq_ignore_ascii_case(name).then(|| value.trim())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_tells_its_status_and_the_length_of_its_body() -> Result<()> {
        let bytes = b"HTTP/1.1 200 OK\r\ncontent-LENGTH: 3\r\n\r\nabc";
        let found = head(bytes)?;
        assert_eq!(found, Some(Head { status: 200, bytes: bytes.len() - 3, body: 3 }));
        assert_eq!(head(&bytes[..20])?, None);
        Ok(())
    }

    #[test]
    fn an_answer_of_unknown_length_is_refused() {
        assert!(head(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n").is_err());
    }
}
