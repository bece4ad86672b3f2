//! The names in a client's certificate, read once a connection. Whether to believe them is the
//! listener's business: see `proxy::tls`.
//!
//! A subject is written as RFC 4514 has it, with everything escaped that could make one name
//! look like another.

use std::fmt::Write as _;

use x509_parser::der_parser::Oid;
use x509_parser::extensions::GeneralName;
use x509_parser::x509::{AttributeTypeAndValue, X509Name};

/// Names of one sort that are looked at.
const MOST: usize = 32;

/// Attributes that have a name (RFC 4514, 3), and e-mail addresses as everybody writes them.
const ATTRIBUTES: [(&str, &str); 10] = [
    ("2.5.4.3", "CN"),
    ("2.5.4.7", "L"),
    ("2.5.4.8", "ST"),
    ("2.5.4.10", "O"),
    ("2.5.4.11", "OU"),
    ("2.5.4.6", "C"),
    ("2.5.4.9", "STREET"),
    ("0.9.2342.19200300.100.1.25", "DC"),
    ("0.9.2342.19200300.100.1.1", "UID"),
    ("1.2.840.113549.1.9.1", "emailAddress"),
];

/// See the module's documentation.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Names {
    /// The distinguished name, the most specific part first (RFC 4514); empty if there is none.
    pub subject: Box<str>,
    /// Only if there is exactly one.
    pub common_name: Option<Box<str>>,
    pub dns: Box<[Box<str>]>,
    pub uris: Box<[Box<str>]>,
    pub emails: Box<[Box<str>]>,
}

impl Names {
    /// None, if it is no certificate that can be read.
    pub fn read(der: &[u8]) -> Option<Self> {
        let (_, certificate) = x509_parser::parse_x509_certificate(der).ok()?;
        let subject = certificate.subject();
        let mut common_names = subject.iter_common_name();
        let common_name = match (common_names.next(), common_names.next()) {
            (Some(one), None) => one.as_str().ok().map(Into::into),
            _ => None,
        };
        let alternative = certificate.subject_alternative_name().ok().flatten();
        let alternative = alternative.map(|names| &names.value.general_names[..]);
        let of = |pick: fn(&GeneralName<'_>) -> Option<Box<str>>| -> Box<[Box<str>]> {
            alternative.unwrap_or_default().iter().filter_map(pick).take(MOST).collect()
        };
        Some(Names {
            subject: distinguished(subject).into(),
            common_name,
            dns: of(|name| match name {
                GeneralName::DNSName(name) => Some((*name).into()),
                _ => None,
            }),
            uris: of(|name| match name {
                GeneralName::URI(name) => Some((*name).into()),
                _ => None,
            }),
            emails: of(|name| match name {
                GeneralName::RFC822Name(name) => Some((*name).into()),
                _ => None,
            }),
        })
    }
}

/// The string form of a name (RFC 4514, 2).
fn distinguished(name: &X509Name<'_>) -> String {
    let mut text = String::new();
    let parts: Vec<_> = name.iter_rdn().collect();
    for part in parts.into_iter().rev() {
        for (i, attribute) in part.iter().enumerate() {
            match (i, text.is_empty()) {
                (_, true) => {}
                (0, _) => text.push(','),
                _ => text.push('+'),
            }
            write_attribute(attribute, &mut text);
        }
    }
    text
}

fn write_attribute(attribute: &AttributeTypeAndValue<'_>, text: &mut String) {
    let oid: &Oid<'_> = attribute.attr_type();
    let dotted = oid.to_id_string();
    let known = ATTRIBUTES.iter().find(|(id, _)| *id == dotted).map(|(_, name)| *name);
    text.push_str(known.unwrap_or(&dotted));
    text.push('=');
    match attribute.as_str().ok().filter(|_| known.is_some()) {
        Some(value) => escape(value, text),
        None => {
            text.push('#');
            for byte in attribute.as_slice() {
                // Writing to a string cannot fail.
                let _ = write!(text, "{byte:02x}");
            }
        }
    }
}

/// RFC 4514, 2.4; control characters too, which no log should have.
fn escape(value: &str, text: &mut String) {
    let last = value.chars().count().saturating_sub(1);
    for (i, c) in value.chars().enumerate() {
        match c {
            '"' | '+' | ',' | ';' | '<' | '>' | '\\' | '=' => text.extend(['\\', c]),
            '#' if i == 0 => text.extend(['\\', c]),
            ' ' if i == 0 || i == last => text.extend(['\\', c]),
            c if c.is_ascii_control() => {
                let _ = write!(text, "\\{:02x}", u32::from(c));
            }
            c => text.push(c),
        }
    }
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, DnType, DnValue, KeyPair, SanType};

    use super::*;

    fn read(parts: &[(DnType, &str)], names: &[SanType]) -> Names {
        let mut params = CertificateParams::default();
        params.distinguished_name = rcgen::DistinguishedName::new();
        for (kind, value) in parts {
            let value = DnValue::Utf8String((*value).to_owned());
            params.distinguished_name.push(kind.clone(), value);
        }
        params.subject_alt_names = names.to_vec();
        let key = KeyPair::generate().unwrap();
        Names::read(params.self_signed(&key).unwrap().der()).unwrap()
    }

    #[test]
    fn the_subject_and_the_alternative_names_are_read() {
        let names = read(
            &[(DnType::OrganizationName, "Example"), (DnType::CommonName, "app")],
            &[
                SanType::DnsName("a.example".try_into().unwrap()),
                SanType::URI("spiffe://example/app".try_into().unwrap()),
                SanType::Rfc822Name("app@a.example".try_into().unwrap()),
                SanType::DnsName("b.example".try_into().unwrap()),
            ],
        );
        assert_eq!(&*names.subject, "CN=app,O=Example");
        assert_eq!(names.common_name.as_deref(), Some("app"));
        assert_eq!(names.dns.join(" "), "a.example b.example");
        assert_eq!(names.uris.join(" "), "spiffe://example/app");
        assert_eq!(names.emails.join(" "), "app@a.example");
    }

    #[test]
    fn no_name_can_be_made_to_look_like_another() {
        let plain = read(&[(DnType::OrganizationName, "admin"), (DnType::CommonName, "a")], &[]);
        let forged = read(&[(DnType::CommonName, "a,O=admin")], &[]);
        assert_eq!(&*plain.subject, "CN=a,O=admin");
        assert_eq!(&*forged.subject, r"CN=a\,O\=admin");
        assert_eq!(&*read(&[(DnType::CommonName, " #a\n ")], &[]).subject, "CN=\\ #a\\0a\\ ");
        assert_eq!(&*read(&[(DnType::CommonName, "#a")], &[]).subject, r"CN=\#a");
    }

    #[test]
    fn what_is_no_certificate_has_no_names() {
        assert_eq!(Names::read(b"none"), None);
        let nobody = read(&[], &[]);
        assert_eq!((&*nobody.subject, nobody.common_name), ("", None));
    }
}
