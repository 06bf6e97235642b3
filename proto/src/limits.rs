//! Every bound of the protocol in one place, each with its unit and its reason.

use std::time::Duration;

/// Longest agent id, bytes: one DNS label, so that it can stand in host names.
pub const AGENT_ID_MAX: usize = 63;

/// Largest frame from a peer that has not authenticated, bytes (SECURITY R30).
pub const FRAME_MAX_UNAUTHENTICATED: usize = 4 * 1024;
/// Largest frame from an authenticated peer, bytes (SECURITY R30).
pub const FRAME_MAX: usize = 64 * 1024;

/// Longest host name or address of a target, bytes: a DNS name is at most 253.
pub const HOST_MAX: usize = 255;
/// Longest human text in a message (refusals, errors), bytes. Longer texts are cut by the sender.
pub const TEXT_MAX: usize = 1024;
/// Most arguments of an exec, and most variables of its environment.
pub const EXEC_ITEMS_MAX: usize = 1024;
/// Largest piece of exec input or output in one frame, bytes.
pub const EXEC_PIECE_MAX: usize = 32 * 1024;
/// Input of an exec that may be sent ahead of what its program has taken, bytes: what the agent holds for a program that
/// does not read. More is an error, so that what comes behind it (an acknowledgement, a cancel) is always seen.
pub const EXEC_STDIN_WINDOW: u64 = 1 << 20;
/// Longest `TERM` of a terminal, bytes.
pub const TERM_MAX: usize = 64;
/// Most columns or rows of a terminal.
pub const TERMINAL_SIDE_MAX: u16 = 2000;
/// Output of a shell that is kept for whoever comes back, bytes.
pub const SHELL_RING: usize = 1 << 20;
/// Output that may be under way to a reader who has not acknowledged it, bytes. Small enough that an interrupt typed
/// into a flood is felt at once.
pub const SHELL_WINDOW: u64 = 256 * 1024;
/// Input that may be under way to a program that has not taken it, bytes.
pub const SHELL_INPUT_WINDOW: u64 = 256 * 1024;
/// A reader that acknowledged nothing for this long no longer holds the program back.
pub const SHELL_HELD_FOR: Duration = Duration::from_secs(5);
/// Longest path of a file, bytes: Linux's PATH_MAX.
pub const PATH_MAX: usize = 4096;
/// Most entries or lines in one frame of an operation on files: with names of `PATH_MAX` they are sent earlier.
pub const FILE_ITEMS_MAX: usize = 256;
/// Most entries of one page of a folder, and most results of a search.
pub const FILE_LIST_MAX: u32 = 10_000;
/// Most sources of one archive.
pub const FILE_SOURCES_MAX: usize = 256;
/// Largest JSON payload of a command, and largest reply, bytes. With the rest of its message it fits one frame.
pub const COMMAND_JSON_MAX: usize = 60 * 1024;
/// Most disks and network interfaces told in one heartbeat.
pub const STATS_ITEMS_MAX: usize = 16;
/// Most protocol versions and capabilities in a Hello.
pub const HELLO_ITEMS_MAX: usize = 32;

/// How often an agent sends a heartbeat unless Welcome says otherwise.
pub const HEARTBEAT_INTERVAL: Duration = Duration::from_secs(15);
/// Heartbeats that may be missed in a row; the next one missed closes the line.
pub const HEARTBEATS_MISSED_MAX: u32 = 3;
/// QUIC keep-alive of the agent: finds a restarted master within one interval; NAT mappings commonly expire at 30 s.
pub const KEEP_ALIVE: Duration = Duration::from_secs(5);
/// Nothing heard for this many keep-alives: to its agent the line is dead, and a new one is dialled.
pub const SILENT_KEEP_ALIVES: u32 = 2;
/// A line on which nothing was received for this long is *suspect*: 2.4 keep-alives.
pub const SUSPECT_AFTER: Duration = Duration::from_secs(12);
/// A line on which nothing was received for this long is gone.
pub const IDLE_TIMEOUT: Duration = Duration::from_secs(45);

/// Time an agent has from its first packet to a complete Hello (SECURITY R32).
pub const AUTHENTICATE_WITHIN: Duration = Duration::from_secs(10);
/// Time for the header of a work stream, and for the answer to it where the operation sets none.
pub const HEADER_WITHIN: Duration = Duration::from_secs(10);

/// How far `issued_at` of a request may lie from the master's time, either way (SECURITY R25).
pub const FRESHNESS_WINDOW: Duration = Duration::from_secs(30);
/// Most request ids remembered per line; a full guard refuses rather than forgets.
pub const FRESHNESS_CAPACITY: usize = 1 << 19;
