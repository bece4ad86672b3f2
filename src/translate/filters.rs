//! The filters of HTTPRoutes and GRPCRoutes as policy Specs, one to one; mirrors and references to our own kinds apart.

use super::ObjectKind;
use crate::api::gateway::{
    ExternalAuthFilter, FilterType, HeaderFilter, HttpRouteFilter, LocalObjectReference,
    MirrorFilter, PathModifier, PathModifierType,
};
use crate::policy::{
    AnySpec, cors, header_edits, path_modifier, redirect, redirect::RedirectScheme, rewrite,
};

/// What a filter asks for.
#[derive(Debug)]
pub(super) enum Filter<'s> {
    Policy(Box<AnySpec>),
    Mirror(&'s MirrorFilter),
    ExternalAuth(&'s ExternalAuthFilter),
    /// A Middleware or RateLimit.
    Extension(&'s LocalObjectReference),
}

/// Reads a filter.
///
/// # Errors
/// A message for the user: a type that is not known, or the field of its type is missing.
pub(super) fn read(kind: ObjectKind, filter: &HttpRouteFilter) -> Result<Filter<'_>, String> {
    if kind == ObjectKind::GrpcRoute && !of_grpc(&filter.r#type) {
        return Err(format!("GRPCRoutes have no filter of type {}; remove it", filter.r#type));
    }
    let missing =
        |field: &str| format!("type is {}, but `{field}` is missing; set it", filter.r#type);
    Ok(Filter::Policy(Box::new(match &filter.r#type {
        FilterType::RequestHeaderModifier => {
            let edits = filter.request_header_modifier.as_ref();
            AnySpec::RequestHeaders(edits_of(edits.ok_or(missing("requestHeaderModifier"))?))
        }
        FilterType::ResponseHeaderModifier => {
            let edits = filter.response_header_modifier.as_ref();
            AnySpec::ResponseHeaders(edits_of(edits.ok_or(missing("responseHeaderModifier"))?))
        }
        FilterType::RequestRedirect => {
            let to = filter.request_redirect.as_ref().ok_or(missing("requestRedirect"))?;
            AnySpec::Redirect(redirect::Spec {
                scheme: to.scheme.as_deref().map(scheme_of).transpose()?,
                hostname: to.hostname.clone(),
                path: to.path.as_ref().map(path_of).transpose()?,
                port: to.port,
                status_code: to.status_code,
            })
        }
        FilterType::UrlRewrite => {
            let to = filter.url_rewrite.as_ref().ok_or(missing("urlRewrite"))?;
            AnySpec::Rewrite(rewrite::Spec {
                hostname: to.hostname.clone(),
                path: to.path.as_ref().map(path_of).transpose()?,
                regex: None,
            })
        }
        FilterType::Cors => {
            let cors = filter.cors.as_ref().ok_or(missing("cors"))?;
            AnySpec::Cors(cors::Spec {
                allow_origins: cors.allow_origins.clone(),
                allow_credentials: cors.allow_credentials,
                allow_methods: cors.allow_methods.clone(),
                allow_headers: cors.allow_headers.clone(),
                expose_headers: cors.expose_headers.clone(),
                max_age: cors.max_age,
            })
        }
        FilterType::RequestMirror => {
            let mirror = filter.request_mirror.as_ref();
            return Ok(Filter::Mirror(mirror.ok_or(missing("requestMirror"))?));
        }
        FilterType::ExtensionRef => {
            let reference = filter.extension_ref.as_ref();
            return Ok(Filter::Extension(reference.ok_or(missing("extensionRef"))?));
        }
        FilterType::ExternalAuth => {
            let auth = filter.external_auth.as_ref();
            return Ok(Filter::ExternalAuth(auth.ok_or(missing("externalAuth"))?));
        }
        FilterType::Other(other) => {
            return Err(format!("filter type {other:?} is not supported; remove it"));
        }
    })))
}

/// The filters of a GRPCRoute.
fn of_grpc(r#type: &FilterType) -> bool {
    matches!(
        r#type,
        FilterType::RequestHeaderModifier
            | FilterType::ResponseHeaderModifier
            | FilterType::RequestMirror
            | FilterType::ExtensionRef
    )
}

fn edits_of(filter: &HeaderFilter) -> header_edits::Spec {
    let headers = |list: &[crate::api::gateway::HttpHeader]| {
        list.iter()
            .map(|h| header_edits::Header { name: h.name.clone(), value: h.value.clone() })
            .collect()
    };
    header_edits::Spec {
        set: headers(&filter.set),
        add: headers(&filter.add),
        remove: filter.remove.clone(),
    }
}

fn scheme_of(text: &str) -> Result<RedirectScheme, String> {
    match text {
        "http" => Ok(RedirectScheme::Http),
        "https" => Ok(RedirectScheme::Https),
        other => Err(format!("scheme {other:?} is not supported; use http or https")),
    }
}

fn path_of(modifier: &PathModifier) -> Result<path_modifier::PathModifier, String> {
    Ok(path_modifier::PathModifier {
        r#type: match &modifier.r#type {
            PathModifierType::ReplaceFullPath => path_modifier::PathModifierType::ReplaceFullPath,
            PathModifierType::ReplacePrefixMatch => {
                path_modifier::PathModifierType::ReplacePrefixMatch
            }
            PathModifierType::Other(other) => {
                return Err(format!(
                    "path modifier {other:?} is not supported; use ReplaceFullPath or ReplacePrefixMatch"
                ));
            }
        },
        replace_full_path: modifier.replace_full_path.clone(),
        replace_prefix_match: modifier.replace_prefix_match.clone(),
    })
}

/// Of each `denominator` requests `numerator` are copied.
///
/// # Errors
/// A message for the user: the share is more than all, or not a share.
pub(super) fn share_of(mirror: &MirrorFilter) -> Result<(u32, u32), String> {
    let (numerator, denominator) = match (mirror.percent, mirror.fraction) {
        (Some(_), Some(_)) => {
            return Err("`percent` and `fraction` exclude each other; keep one".into());
        }
        (Some(percent), None) => (percent, 100),
        (None, Some(fraction)) => (fraction.numerator, fraction.denominator.unwrap_or(100)),
        (None, None) => (1, 1),
    };
    match (u32::try_from(numerator), u32::try_from(denominator)) {
        (Ok(n), Ok(d)) if d > 0 && n <= d => Ok((n, d)),
        _ => Err(format!("{numerator} of {denominator} is not a share; use 0 to 100 percent")),
    }
}

/// Why filters of these types cannot stand together in one rule.
pub(super) fn incompatible(filters: &[HttpRouteFilter]) -> Option<String> {
    let count = |r#type: &FilterType| filters.iter().filter(|f| f.r#type == *r#type).count();
    if count(&FilterType::RequestRedirect) > 0 && count(&FilterType::UrlRewrite) > 0 {
        return Some("RequestRedirect and URLRewrite exclude each other; keep one of them".into());
    }
    let once = [
        FilterType::RequestHeaderModifier,
        FilterType::ResponseHeaderModifier,
        FilterType::RequestRedirect,
        FilterType::UrlRewrite,
        FilterType::Cors,
    ];
    let repeated = once.into_iter().find(|r#type| count(r#type) > 1)?;
    Some(format!("{repeated} stands there more than once; merge them into one"))
}
