//! Who may speak on a Landline: the certificate authority of a master, the identities it issues, the TLS configurations
//! of both ends, the join token, and the secret files all of these live in.
//!
//! Owns cryptographic identity only. Whether an agent is known, suspended or out of date is the master's to say.

pub mod authority;
pub mod ca_file;
pub mod identity;
pub mod join;
pub mod state;
pub mod tls;
pub mod web;

mod verifier;
