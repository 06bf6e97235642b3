//! House rules: what may depend on what, under which licences and in which versions, and how sources begin. Each rule is
//! a function from facts to violations and is itself tried on planted ones; this file applies them to the real house.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod facts;
mod floors;
mod licences;
mod packages;
mod sources;

/// Fails with every violation at once.
#[track_caller]
fn hold(violations: &[String]) {
    assert!(violations.is_empty(), "{} house rule(s) broken:\n  {}", violations.len(), violations.join("\n  "));
}

#[test]
fn crates_keep_to_their_floors() {
    let members = facts::members();
    hold(&floors::crates(&members, &facts::listed("crates")));
}

#[test]
fn rooms_of_the_master_keep_to_their_floors() {
    hold(&floors::rooms(&facts::sources_under("master/src"), &facts::listed("rooms")));
}

#[test]
fn licences_are_on_the_list() {
    let packages = facts::built_packages();
    assert!(packages.len() > 100, "cargo metadata told only {} packages", packages.len());
    hold(&licences::check(&packages));
}

#[test]
fn banned_crates_stay_out_and_versions_stay_up() {
    let locked = facts::locked_packages();
    hold(&packages::banned(&locked));
    hold(&packages::version_floors(&locked));
    hold(&packages::single(&locked));
}

#[test]
fn members_share_lints_and_versions_and_name_their_dependencies_once() {
    let members = facts::members();
    hold(&packages::shared(&members));
    hold(&packages::banned_directly(&members));
}

#[test]
fn sources_say_what_they_own() {
    let sources = facts::all_sources();
    assert!(sources.len() > 20, "only {} sources found", sources.len());
    hold(&sources::opening(&sources));
    hold(&sources::names(&sources));
}

#[test]
fn the_protocol_without_its_network_is_pure() {
    hold(&sources::pure(&facts::sources_under("proto/src")));
    hold(&packages::pure(&facts::members()));
}
