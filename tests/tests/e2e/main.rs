//! End to end: the real binaries, real peers, real faults. One binary, so that it is linked once.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a failed step is a failed test; figures go to its log")]

mod audit;
mod backup;
mod bad_files;
mod bad_link;
mod clocks;
mod crash;
mod dashboard_host;
mod deploy;
mod desk;
mod enrolment;
mod evidence;
mod exec_command;
mod execs;
mod fan_out;
mod files;
mod full_disks;
mod gateway;
mod gateway_hostile;
mod gateway_lives;
mod hostile_agent;
mod hostile_master;
mod hostile_target;
mod install;
mod interactive;
mod keys;
mod live;
mod outside_judges;
mod panel;
mod people;
mod readme;
mod recordings;
mod secrets;
mod shells;
mod starts;
mod survival;
mod transfer_kills;
mod transfer_rates;
mod transfer_sizes;
mod transfers;
mod tunnel_bytes;
mod tunnel_limits;
mod tunnel_lives;
mod unread;
