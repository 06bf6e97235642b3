//! Connections that carry HTTP, on whatever socket: accepting them, their deadlines and bounds. Knows no route and no
//! caller.

pub mod hosts;
pub mod server;
pub mod unstalled;
