//! What our policy kinds share: where they attach, and their status (GEP-713).

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

use super::gateway::PolicyStatus;

/// An object in the policy's own namespace, or a part of it.
#[derive(
    Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "camelCase")]
pub struct TargetRef {
    /// The group of the kind; empty for core kinds.
    #[schemars(length(max = 253))]
    pub group: String,
    /// `Gateway`, `ListenerSet`, `HTTPRoute`, `GRPCRoute` or `Ingress`.
    #[schemars(length(min = 1, max = 63))]
    pub kind: String,
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// A listener of the Gateway, or a named rule of the route; all of it by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub section_name: Option<String>,
}

/// The type is shared with kinds that are not ours and knows no bounds; as a part of our CRDs
/// it needs them.
impl JsonSchema for PolicyStatus {
    fn schema_name() -> Cow<'static, str> {
        "PolicyStatus".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        let text = |max: u32| serde_json::json!({"type": "string", "maxLength": max});
        json_schema!({
            "description": "What the policy applies to, by each controller.",
            "type": "object",
            "required": ["ancestors"],
            "properties": {
                "ancestors": {
                    "type": "array",
                    "maxItems": 16,
                    "x-kubernetes-list-type": "atomic",
                    "items": {
                        "type": "object",
                        "required": ["ancestorRef", "controllerName"],
                        "properties": {
                            "ancestorRef": {
                                "description": "The object that it applies to, or was meant to.",
                                "type": "object",
                                "required": ["name"],
                                "properties": {
                                    "group": text(253),
                                    "kind": text(63),
                                    "namespace": text(63),
                                    "name": text(253),
                                    "sectionName": text(253),
                                    "port": {
                                        "type": "integer",
                                        "format": "int32",
                                        "minimum": 1,
                                        "maximum": 65535,
                                    },
                                },
                            },
                            "controllerName": text(253),
                            "conditions": {
                                "type": "array",
                                "maxItems": 8,
                                "x-kubernetes-list-type": "map",
                                "x-kubernetes-list-map-keys": ["type"],
                                "items": condition(),
                            },
                        },
                    },
                },
            },
        })
    }
}

/// As `metav1.Condition`.
pub(super) fn condition() -> serde_json::Value {
    serde_json::json!({
        "type": "object",
        "required": ["type", "status", "reason", "message", "lastTransitionTime"],
        "properties": {
            "type": {"type": "string", "maxLength": 316},
            "status": {"type": "string", "enum": ["True", "False", "Unknown"]},
            "reason": {"type": "string", "maxLength": 1024},
            "message": {"type": "string", "maxLength": 32768},
            "lastTransitionTime": {"type": "string", "format": "date-time", "maxLength": 64},
            "observedGeneration": {"type": "integer", "format": "int64", "minimum": 0},
        },
    })
}
