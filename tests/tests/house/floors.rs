//! Floors: which crate may stand on which, and which room of the master may call which. The lists are ARCHITECTURE.md's.

use std::collections::BTreeMap;

use crate::facts::{Member, Source};

/// `list` has one line per crate: `name: the workspace crates it may depend on`. Development dependencies count.
pub(crate) fn crates(members: &[Member], list: &[String]) -> Vec<String> {
    let allowed: BTreeMap<&str, Vec<&str>> = list
        .iter()
        .filter_map(|line| line.split_once(':'))
        .map(|(name, below)| (name.trim(), below.split_whitespace().collect()))
        .collect();
    let mut violations = Vec::new();
    for member in members {
        let Some(below) = allowed.get(member.name.as_str()) else {
            violations.push(format!("{} is not on ARCHITECTURE.md's list of crates", member.name));
            continue;
        };
        let ours = member.dependencies.iter().filter(|dependency| allowed.contains_key(dependency.package.as_str()));
        let wrong = ours.filter(|dependency| !below.contains(&dependency.package.as_str()));
        violations.extend(wrong.map(|dependency| format!("{} must not depend on {}", member.name, dependency.package)));
    }
    violations
}

/// `list` has one line per floor, top to bottom: the rooms on it. `sources` are those below `master/src`.
pub(crate) fn rooms(sources: &[Source], list: &[String]) -> Vec<String> {
    let floor_of: BTreeMap<&str, usize> = list
        .iter()
        .enumerate()
        .flat_map(|(floor, rooms)| rooms.split_whitespace().map(move |room| (room, floor)))
        .collect();
    let mut violations = Vec::new();
    for source in sources {
        let room = room_of(&source.path);
        if room == "lib" {
            continue;
        }
        let Some(floor) = floor_of.get(room) else {
            violations.push(format!("master/src/{}: {room} is not on ARCHITECTURE.md's list of rooms", source.path));
            continue;
        };
        for (line, called) in calls(source) {
            let Some(called_floor) = floor_of.get(called.as_str()) else { continue };
            if called != room && called_floor <= floor {
                let how = if called_floor == floor { "is on the same floor" } else { "is above it" };
                violations
                    .push(format!("master/src/{}:{line}: {room} must not call {called}, which {how}", source.path));
            }
        }
    }
    violations
}

fn room_of(path: &str) -> &str {
    let first = path.split('/').next().unwrap_or_default();
    first.strip_suffix(".rs").unwrap_or(first)
}

/// Depth of the module a file makes: 1 for a room itself, 2 for what is in it.
fn depth_of(path: &str) -> usize {
    let parts = path.split('/').count();
    if path.ends_with("/mod.rs") { parts - 1 } else { parts }
}

/// Names of top-level modules that a source mentions by path, with their lines.
fn calls(source: &Source) -> Vec<(usize, String)> {
    let text: String =
        source.text.lines().map(|line| line.split("//").next().unwrap_or_default()).collect::<Vec<_>>().join("\n");
    let up = "super::".repeat(depth_of(&source.path));
    let mut found = Vec::new();
    for root in ["crate::", "landline::", up.as_str()] {
        for (at, _) in text.match_indices(root) {
            let before = text[..at].chars().next_back().unwrap_or(' ');
            // A longer path that only ends like a root, as `super::super::` does for the shorter one.
            if before.is_alphanumeric() || before == '_' || before == ':' {
                continue;
            }
            let line = text[..at].matches('\n').count() + 1;
            found.extend(heads(&text[at + root.len()..]).into_iter().map(|name| (line, name)));
        }
    }
    found
}

/// The first names behind a path's root: one, or all of a braced group.
fn heads(text: &str) -> Vec<String> {
    let name =
        |text: &str| text.trim_start().chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect::<String>();
    let Some(group) = text.strip_prefix('{') else { return vec![name(text)] };
    let (mut depth, mut start, mut names) = (0usize, 0, Vec::new());
    for (at, c) in group.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth == 0 => {
                names.push(name(&group[start..at]));
                break;
            }
            '}' => depth -= 1,
            ',' if depth == 0 => {
                names.push(name(&group[start..at]));
                start = at + 1;
            }
            _ => {}
        }
    }
    names
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::facts::Dependency;

    fn list(lines: &[&str]) -> Vec<String> {
        lines.iter().map(|line| (*line).to_owned()).collect()
    }

    #[test]
    fn planted_arrows_between_crates_are_found() {
        let list = list(&["ground:", "left: ground", "right: ground"]);
        let member = |name: &str, below: &str, development: bool| Member {
            name: name.into(),
            manifest: toml::Table::new(),
            dependencies: vec![Dependency { package: below.into(), optional: false, development }],
        };
        assert_eq!(
            crates(&[member("left", "ground", false), member("left", "serde", false)], &list),
            Vec::<String>::new()
        );
        assert_eq!(crates(&[member("left", "right", false)], &list), ["left must not depend on right"]);
        assert_eq!(crates(&[member("ground", "left", true)], &list), ["ground must not depend on left"]);
        assert_eq!(crates(&[member("new", "ground", false)], &list).len(), 1);
    }

    fn planted(path: &str, text: &str) -> Vec<String> {
        let list = list(&["main", "api gateway", "tunnel", "store"]);
        rooms(&[Source { path: path.into(), text: text.into() }], &list)
    }

    #[test]
    fn planted_arrows_between_rooms_are_found() {
        let fine = "use crate::{store::{Row, api}, tunnel};\n// crate::main is above\nuse super::gateway;";
        assert_eq!(planted("api/routes.rs", fine), Vec::<String>::new());
        assert_eq!(planted("main.rs", "use landline::{api, store};"), Vec::<String>::new());
        assert_eq!(planted("lib.rs", "pub mod api;"), Vec::<String>::new());
        assert_eq!(planted("tunnel/mod.rs", "use crate::tunnel::lifecycle;"), Vec::<String>::new());

        let up = ["master/src/store.rs:2: store must not call tunnel, which is above it"];
        assert_eq!(planted("store.rs", "\nuse crate::tunnel::Row;"), up);
        assert_eq!(planted("store/sql.rs", "fn f() { crate::tunnel::f(); }").len(), 1);
        assert_eq!(planted("store/sql.rs", "use crate::{\n    store::x,\n    api::{a, b},\n    tunnel,\n};").len(), 2);
        assert_eq!(planted("store/mod.rs", "use super::tunnel;").len(), 1);
        assert_eq!(planted("store/sql.rs", "use super::super::tunnel::X;").len(), 1);
        let same = ["master/src/gateway.rs:1: gateway must not call api, which is on the same floor"];
        assert_eq!(planted("gateway.rs", "use crate::api::X;"), same);
        assert_eq!(planted("attic/mod.rs", "").len(), 1);
    }
}
