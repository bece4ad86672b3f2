//! Tidegate: a Kubernetes ingress and Gateway API controller with its proxy inside.
//!
//! Objects in, a compiled route graph out, one atomic swap:
//!
//! ```text
//! source -> Snapshot -> translate -> Translation { graph, statuses, infrastructure, notes }
//!                                        |                 |
//!                                 graph::Shared        controller (only the Lease holder)
//!                                        |
//!                                      proxy (N workers, one graph per request)
//! ```
//!
//! The words used everywhere: **Snapshot** objects at one moment, **Translation** what
//! translate returns, **RouteGraph** compiled config numbered by generation, **Listener** port
//! and protocol and TLS, **Section** one Gateway listener on it, **Stream** the same for bytes,
//! **Datagrams** a UDP port, **Rule** match, policies and action, **Policy** one behaviour,
//! **Backend** weighted target, **Endpoint** one address, **Service** a backend that a policy
//! asks, **Exchange** one request and its response, **Reason** a typed cause, **Lease** the right
//! to write, **Drain** stop taking and finish what is held.

pub mod admin;
pub mod api;
pub mod cli;
pub mod controller;
pub mod graph;
pub mod health;
pub mod lifecycle;
pub mod policy;
pub mod proxy;
pub mod reason;
pub mod reconcile;
pub mod services;
pub mod source;
pub mod telemetry;
pub mod translate;
