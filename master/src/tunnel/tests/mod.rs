//! Tunnels in one process, from the request to the last reset: real fleet, store, QUIC and sockets.

mod bytes;
mod ends;
mod peers;
mod requests;
mod restarts;
mod world;
