//! The messages of Envoy's external authorization, `envoy.service.auth.v3.Authorization`: the
//! fields that are used here and no others. Unknown fields of an answer are passed over, as
//! Protocol Buffers have it; the names and numbers are those of the public definitions
//! (`external_auth.proto`, `attribute_context.proto`, `base.proto`).

use std::collections::BTreeMap;

use prost::{Message, Oneof};

/// The method that answers [`CheckRequest`] with [`CheckResponse`].
pub const CHECK: &str = "/envoy.service.auth.v3.Authorization/Check";

/// May this request go on?
#[derive(Clone, PartialEq, Message)]
pub struct CheckRequest {
    #[prost(message, optional, tag = "1")]
    pub attributes: Option<AttributeContext>,
}

#[derive(Clone, PartialEq, Message)]
pub struct AttributeContext {
    /// The client.
    #[prost(message, optional, tag = "1")]
    pub source: Option<Peer>,
    /// The listener.
    #[prost(message, optional, tag = "2")]
    pub destination: Option<Peer>,
    #[prost(message, optional, tag = "4")]
    pub request: Option<Request>,
}

#[derive(Clone, PartialEq, Message)]
pub struct Peer {
    #[prost(message, optional, tag = "1")]
    pub address: Option<Address>,
    /// Who it is, where that was proven.
    #[prost(string, tag = "4")]
    pub principal: String,
}

#[derive(Clone, PartialEq, Message)]
pub struct Address {
    #[prost(message, optional, tag = "1")]
    pub socket_address: Option<SocketAddress>,
}

#[derive(Clone, PartialEq, Message)]
pub struct SocketAddress {
    #[prost(string, tag = "2")]
    pub address: String,
    #[prost(uint32, tag = "3")]
    pub port_value: u32,
}

#[derive(Clone, PartialEq, Message)]
pub struct Request {
    #[prost(message, optional, tag = "1")]
    pub time: Option<Timestamp>,
    #[prost(message, optional, tag = "2")]
    pub http: Option<HttpRequest>,
}

#[derive(Clone, PartialEq, Message)]
pub struct Timestamp {
    #[prost(int64, tag = "1")]
    pub seconds: i64,
    #[prost(int32, tag = "2")]
    pub nanos: i32,
}

#[derive(Clone, PartialEq, Message)]
pub struct HttpRequest {
    #[prost(string, tag = "1")]
    pub id: String,
    #[prost(string, tag = "2")]
    pub method: String,
    /// By lower-case name; fields of one name are joined by commas.
    #[prost(btree_map = "string, string", tag = "3")]
    pub headers: BTreeMap<String, String>,
    /// Path and query.
    #[prost(string, tag = "4")]
    pub path: String,
    #[prost(string, tag = "5")]
    pub host: String,
    #[prost(string, tag = "6")]
    pub scheme: String,
    /// Bytes of the body; -1: not known.
    #[prost(int64, tag = "9")]
    pub size: i64,
    /// The body, if it is UTF-8.
    #[prost(string, tag = "11")]
    pub body: String,
    /// The body, if it is not.
    #[prost(bytes = "bytes", tag = "12")]
    pub raw_body: bytes::Bytes,
}

#[derive(Clone, PartialEq, Message)]
pub struct CheckResponse {
    /// Code 0: the request may go on.
    #[prost(message, optional, tag = "1")]
    pub status: Option<Status>,
    #[prost(oneof = "HttpResponse", tags = "2, 3")]
    pub http_response: Option<HttpResponse>,
}

/// `google.rpc.Status`.
#[derive(Clone, PartialEq, Message)]
pub struct Status {
    #[prost(int32, tag = "1")]
    pub code: i32,
}

#[derive(Clone, PartialEq, Oneof)]
pub enum HttpResponse {
    #[prost(message, tag = "2")]
    Denied(Denied),
    #[prost(message, tag = "3")]
    Allowed(Allowed),
}

/// `DeniedHttpResponse`: what the client gets.
#[derive(Clone, PartialEq, Message)]
pub struct Denied {
    #[prost(message, optional, tag = "1")]
    pub status: Option<HttpStatus>,
    #[prost(message, repeated, tag = "2")]
    pub headers: Vec<HeaderOption>,
    #[prost(string, tag = "3")]
    pub body: String,
}

#[derive(Clone, PartialEq, Message)]
pub struct HttpStatus {
    #[prost(int32, tag = "1")]
    pub code: i32,
}

/// `OkHttpResponse`: how the request goes on.
#[derive(Clone, PartialEq, Message)]
pub struct Allowed {
    #[prost(message, repeated, tag = "2")]
    pub headers: Vec<HeaderOption>,
    #[prost(string, repeated, tag = "5")]
    pub headers_to_remove: Vec<String>,
    #[prost(message, repeated, tag = "6")]
    pub response_headers_to_add: Vec<HeaderOption>,
    #[prost(message, repeated, tag = "7")]
    pub query_parameters_to_set: Vec<QueryParameter>,
    #[prost(string, repeated, tag = "8")]
    pub query_parameters_to_remove: Vec<String>,
}

/// `QueryParameter`.
#[derive(Clone, PartialEq, Message)]
pub struct QueryParameter {
    #[prost(string, tag = "1")]
    pub key: String,
    #[prost(string, tag = "2")]
    pub value: String,
}

/// `HeaderValueOption`.
#[derive(Clone, PartialEq, Message)]
pub struct HeaderOption {
    #[prost(message, optional, tag = "1")]
    pub header: Option<Header>,
    /// `google.protobuf.BoolValue`; external authorization overwrites by default.
    #[prost(message, optional, tag = "2")]
    pub append: Option<bool>,
    #[prost(int32, tag = "3")]
    pub append_action: i32,
}

/// `HeaderValue`: one of the two values is set.
#[derive(Clone, PartialEq, Message)]
pub struct Header {
    #[prost(string, tag = "1")]
    pub key: String,
    #[prost(string, tag = "2")]
    pub value: String,
    #[prost(bytes = "bytes", tag = "3")]
    pub raw_value: bytes::Bytes,
}

#[cfg(test)]
mod tests {
    use super::*;

    /// By hand from the public definitions: field numbers must be those of other programs.
    #[test]
    fn the_bytes_are_those_of_the_public_definitions() {
        let denied = CheckResponse {
            status: Some(Status { code: 7 }),
            http_response: Some(HttpResponse::Denied(Denied {
                status: Some(HttpStatus { code: 401 }),
                headers: Vec::new(),
                body: "no".into(),
            })),
        };
        let bytes = b"\x0a\x02\x08\x07\x12\x09\x0a\x03\x08\x91\x03\x1a\x02no";
        assert_eq!(denied.encode_to_vec(), bytes);
        let http = HttpRequest { method: "GET".into(), path: "/a".into(), ..Default::default() };
        let request = Request { time: None, http: Some(http) };
        let attributes = AttributeContext { request: Some(request), ..Default::default() };
        let check = CheckRequest { attributes: Some(attributes) };
        let bytes = b"\x0a\x0d\x22\x0b\x12\x09\x12\x03GET\x22\x02/a";
        assert_eq!(check.encode_to_vec(), bytes);
    }

    #[test]
    fn fields_that_are_not_known_are_passed_over() {
        // dynamic_metadata (4), an ok_response with query_parameters_to_remove (8) and dynamic
        // metadata of its own (3).
        let bytes = b"\x22\x02\x0a\x00\x1a\x05\x42\x01q\x1a\x00";
        let read = CheckResponse::decode(&bytes[..]).unwrap();
        let allowed =
            Allowed { query_parameters_to_remove: vec!["q".into()], ..Allowed::default() };
        assert_eq!(read.http_response, Some(HttpResponse::Allowed(allowed)));
    }
}
