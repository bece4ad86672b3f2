//! The admin address: liveness, readiness, metrics; drain and inspection on loopback.
