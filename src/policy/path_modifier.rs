//! How a redirect or a rewrite changes a path: HTTPRoute's `HTTPPathModifier`.

use http::uri::PathAndQuery;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Invalid;

/// Longest replacement, as HTTPRoute has it.
const MAX_LENGTH: usize = 1024;

/// A change of the path. The field that `type` names is required.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PathModifier {
    /// What is replaced: the whole path, or the prefix that the rule matched.
    pub r#type: PathModifierType,
    /// The new path.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024))]
    pub replace_full_path: Option<String>,
    /// What stands in place of the prefix; a trailing `/` is ignored.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024))]
    pub replace_prefix_match: Option<String>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum PathModifierType {
    #[default]
    ReplaceFullPath,
    ReplacePrefixMatch,
}

/// A [`PathModifier`], parsed.
#[derive(Clone, Debug, PartialEq)]
pub enum PathChange {
    Full(Box<str>),
    /// Without a trailing slash: empty for `/`.
    Prefix(Box<str>),
}

impl PathChange {
    /// `field` is where the user wrote the modifier, such as `path`.
    pub fn compile(field: &str, spec: &PathModifier) -> Result<Self, Invalid> {
        let (name, value) = match spec.r#type {
            PathModifierType::ReplaceFullPath => ("replaceFullPath", &spec.replace_full_path),
            PathModifierType::ReplacePrefixMatch => {
                ("replacePrefixMatch", &spec.replace_prefix_match)
            }
        };
        let at = format!("{field}.{name}");
        let Some(value) = value else {
            let message = format!("missing, but `type` is {:?}; set it", spec.r#type);
            return Err(Invalid::new(at, message));
        };
        let path = absolute(&at, value)?;
        Ok(match spec.r#type {
            PathModifierType::ReplaceFullPath => PathChange::Full(path.into()),
            PathModifierType::ReplacePrefixMatch => {
                PathChange::Prefix(path.trim_end_matches('/').into())
            }
        })
    }

    /// The path that `path` becomes. `matched` is the prefix that the rule matched, without a
    /// trailing slash; where `path` does not begin with it (another policy has changed the
    /// path already), a prefix is not replaced.
    pub fn apply(&self, path: &str, matched: &str) -> Box<str> {
        let replacement = match self {
            PathChange::Full(full) => return full.clone(),
            PathChange::Prefix(replacement) => replacement,
        };
        let rest = path.strip_prefix(matched).filter(|r| r.is_empty() || r.starts_with('/'));
        match rest {
            None => path.into(),
            Some("") if replacement.is_empty() => "/".into(),
            Some(rest) => format!("{replacement}{rest}").into(),
        }
    }
}

/// `path` with a leading slash, if it can stand in a request target without a query.
pub(super) fn absolute(field: &str, path: &str) -> Result<String, Invalid> {
    if path.len() > MAX_LENGTH {
        return Err(Invalid::new(field, format!("longer than {MAX_LENGTH} bytes; shorten it")));
    }
    let path = if path.starts_with('/') { path.to_owned() } else { format!("/{path}") };
    let is_path = !path.contains(['?', '#']) && path.is_ascii();
    match PathAndQuery::try_from(path.as_str()) {
        Ok(_) if is_path && !has_dot_segment(&path) => Ok(path),
        _ => Err(Invalid::new(
            field,
            format!("{path:?} is not a path; percent-encode it, without `?`, `#` and `..`"),
        )),
    }
}

/// Whether a segment of `path` is `.` or `..`, plain or percent-encoded: backends would walk.
pub(super) fn has_dot_segment(path: &str) -> bool {
    path.split('/').any(|segment| {
        if segment.len() > "%2e%2e".len() || !segment.contains(['.', '%']) {
            return false;
        }
        let plain = segment.replace("%2e", ".").replace("%2E", ".");
        plain == "." || plain == ".."
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prefix(replacement: &str) -> PathChange {
        let spec = PathModifier {
            r#type: PathModifierType::ReplacePrefixMatch,
            replace_prefix_match: Some(replacement.into()),
            ..PathModifier::default()
        };
        PathChange::compile("path", &spec).unwrap()
    }

    #[test]
    fn prefixes_are_replaced_as_the_table_of_gateway_api_says() {
        for (path, replacement, expected) in [
            ("/foo/bar", "/xyz", "/xyz/bar"),
            ("/foo/bar", "/xyz/", "/xyz/bar"),
            ("/foo", "/xyz", "/xyz"),
            ("/foo/", "/xyz", "/xyz/"),
            ("/foo/bar", "", "/bar"),
            ("/foo/", "", "/"),
            ("/foo", "", "/"),
            ("/foo/", "/", "/"),
            ("/foo", "/", "/"),
        ] {
            let result = prefix(replacement).apply(path, "/foo");
            assert_eq!(&*result, expected, "{path} /foo -> {replacement:?}");
        }
    }

    #[test]
    fn the_empty_prefix_is_replaced_by_putting_the_replacement_in_front() {
        assert_eq!(&*prefix("/xyz").apply("/bar", ""), "/xyz/bar");
    }

    #[test]
    fn a_path_that_left_the_matched_prefix_stays() {
        assert_eq!(&*prefix("/xyz").apply("/food", "/foo"), "/food");
    }

    #[test]
    fn the_full_path_is_replaced() {
        let spec = PathModifier { replace_full_path: Some("one".into()), ..Default::default() };
        assert_eq!(&*PathChange::compile("path", &spec).unwrap().apply("/a/b", "/a"), "/one");
    }

    #[test]
    fn what_is_not_a_path_is_refused() {
        for bad in ["/a?b", "/a#b", "/a b", "/ä", "/a/../b", "/%2e%2E/b", "/a\r\nb"] {
            let spec = PathModifier { replace_full_path: Some(bad.into()), ..Default::default() };
            assert!(PathChange::compile("path", &spec).is_err(), "{bad:?}");
        }
        assert!(PathChange::compile("path", &PathModifier::default()).is_err());
    }
}
