//! One gRPC call with one message each way, over [`Services`]: framing and status, as
//! "gRPC over HTTP2" describes them. Messages are not compressed.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use http::header::{CONTENT_TYPE, TE};
use http::{HeaderMap, HeaderValue, Method, Request, StatusCode, Uri};
use prost::Message;

use super::{Answer, Limits, ServiceId, Services};
use crate::reason::Reason;

/// Before each message: whether it is compressed, and its length.
const PREFIX: usize = 5;

/// Calls `method`, such as `/package.Service/Method`. The server is told how long it may take.
///
/// # Errors
/// Those of [`Services::call`], and [`Reason::UpstreamProtocol`] for everything that is not one
/// message with the status OK.
pub async fn unary<R: Message + Default>(
    services: &(impl Services + ?Sized),
    to: ServiceId,
    method: &'static str,
    message: &impl Message,
    limits: Limits,
) -> Result<R, Reason> {
    let mut request = Request::new(frame(message));
    *request.method_mut() = Method::POST;
    *request.uri_mut() = Uri::from_static(method);
    let headers = request.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    headers.insert(TE, HeaderValue::from_static("trailers"));
    let timeout = format!("{}m", limits.timeout.as_millis());
    headers.insert("grpc-timeout", HeaderValue::try_from(timeout).map_err(|_| Reason::Internal)?);
    let answer = services.call(to, request, limits).await?;
    read(&answer).ok_or(Reason::UpstreamProtocol)
}

fn frame(message: &impl Message) -> Bytes {
    let length = message.encoded_len();
    let mut framed = BytesMut::with_capacity(PREFIX + length);
    framed.put_u8(0);
    framed.put_u32(u32::try_from(length).unwrap_or(u32::MAX));
    // A buffer in memory grows as it must, so that writing to it cannot fail.
    let _ = message.encode(&mut framed);
    framed.freeze()
}

fn read<R: Message + Default>(answer: &Answer) -> Option<R> {
    let ok = answer.status == StatusCode::OK && answer.is_whole;
    // An answer without a message has its status in the head.
    let status = status(&answer.trailers).or_else(|| status(&answer.headers));
    if !ok || status != Some(b"0") {
        return None;
    }
    let mut body = answer.body.clone();
    if body.len() < PREFIX || body.get_u8() != 0 {
        return None;
    }
    let length = body.get_u32() as usize;
    (body.len() == length).then(|| R::decode(body).ok())?
}

fn status(fields: &HeaderMap) -> Option<&[u8]> {
    fields.get("grpc-status").map(HeaderValue::as_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::services::ext_authz::{CheckResponse, Status};

    fn answer(body: impl Into<Bytes>, trailer: Option<&'static str>) -> Answer {
        let mut answer = Answer { body: body.into(), is_whole: true, ..Answer::default() };
        if let Some(status) = trailer {
            answer.trailers.insert("grpc-status", HeaderValue::from_static(status));
        }
        answer
    }

    fn denied() -> CheckResponse {
        CheckResponse { status: Some(Status { code: 7 }), ..Default::default() }
    }

    #[test]
    fn a_message_is_framed_and_read_again() {
        let framed = frame(&denied());
        assert_eq!(framed[..PREFIX], [0, 0, 0, 0, 4]);
        assert_eq!(read(&answer(framed, Some("0"))), Some(denied()));
    }

    #[test]
    fn everything_else_is_no_answer() {
        let framed = frame(&denied());
        let mut long = framed.to_vec();
        long.push(0);
        let mut compressed = framed.to_vec();
        compressed[0] = 1;
        let cut = Answer { is_whole: false, ..answer(framed.clone(), Some("0")) };
        let teapot =
            Answer { status: StatusCode::IM_A_TEAPOT, ..answer(framed.clone(), Some("0")) };
        for wrong in [
            answer(framed.clone(), None),
            answer(framed.clone(), Some("16")),
            answer(framed.slice(..framed.len() - 1), Some("0")),
            answer(long, Some("0")),
            answer(compressed, Some("0")),
            answer(vec![0, 0, 0], Some("0")),
            answer(vec![0, 0, 0, 0, 1, 0xff], Some("0")),
            cut,
            teapot,
        ] {
            assert_eq!(read::<CheckResponse>(&wrong), None, "{wrong:?}");
        }
    }
}
