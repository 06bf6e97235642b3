//! Packages: what stays out, what must be new enough, what may exist once only, and what members share (SECURITY R34).

use cargo_metadata::semver::Version;

use crate::facts::{Member, Package};

/// Never in the tree, and why.
const BANNED: &[(&str, &str)] = &[
    ("openssl-sys", "one TLS: rustls"),
    ("openssl", "one TLS: rustls"),
    ("native-tls", "one TLS: rustls"),
    ("aws-lc-rs", "one crypto provider: ring; two make rustls panic on its default"),
    ("aws-lc-sys", "one crypto provider: ring; two make rustls panic on its default"),
    ("rustls-pemfile", "unmaintained; rustls-pki-types reads PEM"),
    ("serde_yaml", "unmaintained"),
    ("bincode", "unmaintained"),
    ("atty", "unmaintained"),
    ("failure", "unmaintained"),
    ("async-std", "unmaintained, and one runtime: tokio"),
];

/// Never a dependency of ours, though others may bring them.
const BANNED_DIRECTLY: &[(&str, &str)] = &[
    ("lazy_static", "no process-wide statics: two masters must run inside one test"),
    ("once_cell", "the standard library has it"),
    ("chrono", "times are jiff's"),
    ("time", "times are jiff's"),
    ("log", "tracing"),
    ("parking_lot", "the standard library's locks"),
];

/// Older versions have live advisories or a known bug.
const FLOORS: &[(&str, &str)] =
    &[("quinn", "0.11.12"), ("quinn-proto", "0.11.19"), ("ring", "0.17.14"), ("rustls", "0.23.0")];

/// Exactly one version in the tree.
const SINGLE: &[&str] = &["ring", "rustls", "rustls-webpki", "quinn", "quinn-proto", "tokio", "sqlx", "axum", "hyper"];

/// What `proto` may need when it has no network.
const PURE: &[&str] = &["serde", "postcard", "uuid", "thiserror", "bytes"];

pub(crate) fn banned(locked: &[Package]) -> Vec<String> {
    let why = |name: &str| BANNED.iter().find(|(banned, _)| *banned == name).map(|(_, why)| why);
    locked.iter().filter_map(|p| why(&p.name).map(|why| format!("{} {} is banned: {why}", p.name, p.version))).collect()
}

pub(crate) fn version_floors(locked: &[Package]) -> Vec<String> {
    let mut violations = Vec::new();
    for (name, floor) in FLOORS {
        let floor: Version = floor.parse().unwrap();
        let mut found = locked.iter().filter(|package| package.name == *name).peekable();
        if found.peek().is_none() {
            violations.push(format!("{name} is not in the lock file; its floor guards nothing"));
        }
        let old = found.filter(|package| package.version < floor);
        violations.extend(old.map(|package| format!("{name} {} is older than {floor}", package.version)));
    }
    violations
}

pub(crate) fn single(locked: &[Package]) -> Vec<String> {
    let count = |name: &str| locked.iter().filter(|package| package.name == name).count();
    let wrong = SINGLE.iter().map(|name| (name, count(name))).filter(|(_, count)| *count != 1);
    wrong.map(|(name, count)| format!("{name} is in the tree {count} times instead of once")).collect()
}

/// Members take lints and versions from the workspace.
pub(crate) fn shared(members: &[Member]) -> Vec<String> {
    let mut violations = Vec::new();
    for member in members {
        let inherits = |value: Option<&toml::Value>| {
            value.and_then(|value| value.get("workspace")).and_then(toml::Value::as_bool) == Some(true)
        };
        if !inherits(member.manifest.get("lints")) {
            violations.push(format!("{} does not take its lints from the workspace", member.name));
        }
        for table in ["dependencies", "dev-dependencies", "build-dependencies"] {
            let own = member.manifest.get(table).and_then(toml::Value::as_table).into_iter().flatten();
            let own = own.filter(|(_, value)| !inherits(Some(value)));
            violations
                .extend(own.map(|(name, _)| format!("{}: the version of {name} is not the workspace's", member.name)));
        }
    }
    violations
}

pub(crate) fn banned_directly(members: &[Member]) -> Vec<String> {
    let mut violations = Vec::new();
    for member in members {
        for (name, why) in BANNED_DIRECTLY {
            if member.dependencies.iter().any(|dependency| dependency.package == *name) {
                violations.push(format!("{} uses {name}: {why}", member.name));
            }
        }
    }
    violations
}

/// `proto` without features brings neither runtime nor sockets.
pub(crate) fn pure(members: &[Member]) -> Vec<String> {
    let Some(proto) = members.iter().find(|member| member.name == "landline-proto") else {
        return vec!["landline-proto is missing".into()];
    };
    let needed = proto.dependencies.iter().filter(|dependency| !dependency.optional && !dependency.development);
    let impure = needed.filter(|dependency| !PURE.contains(&dependency.package.as_str()));
    impure.map(|dependency| format!("landline-proto needs {} even without its network", dependency.package)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::facts::Dependency;

    fn locked(packages: &[(&str, &str)]) -> Vec<Package> {
        let package = |(name, version): &(&str, &str)| Package {
            name: (*name).into(),
            version: version.parse().unwrap(),
            licence: None,
        };
        packages.iter().map(package).collect()
    }

    fn member(manifest: &str, dependencies: &[&str]) -> Member {
        let dependency = |name: &&str| Dependency { package: (*name).into(), optional: false, development: false };
        Member {
            name: "landline-proto".into(),
            manifest: manifest.parse().unwrap(),
            dependencies: dependencies.iter().map(dependency).collect(),
        }
    }

    #[test]
    fn a_planted_old_version_is_found() {
        let good = [("quinn", "0.11.12"), ("quinn-proto", "0.11.19"), ("ring", "0.17.14"), ("rustls", "0.23.46")];
        assert_eq!(version_floors(&locked(&good)), Vec::<String>::new());
        let old = [("quinn", "0.11.9"), ("quinn-proto", "0.11.18"), ("ring", "0.17.14"), ("rustls", "0.23.46")];
        let told = ["quinn 0.11.9 is older than 0.11.12", "quinn-proto 0.11.18 is older than 0.11.19"];
        assert_eq!(version_floors(&locked(&old)), told);
        assert_eq!(version_floors(&locked(&good[1..])), ["quinn is not in the lock file; its floor guards nothing"]);
        let second = [good.as_slice(), &[("quinn", "0.10.0")]].concat();
        assert_eq!(version_floors(&locked(&second)), ["quinn 0.10.0 is older than 0.11.12"]);
    }

    #[test]
    fn a_planted_banned_crate_and_a_second_provider_are_found() {
        assert_eq!(banned(&locked(&[("serde", "1.0.0")])), Vec::<String>::new());
        assert_eq!(banned(&locked(&[("openssl-sys", "0.9.0"), ("aws-lc-rs", "1.0.0")])).len(), 2);
        let once: Vec<_> = SINGLE.iter().map(|name| (*name, "1.0.0")).collect();
        assert_eq!(single(&locked(&once)), Vec::<String>::new());
        let twice = [once.as_slice(), &[("ring", "0.16.20")]].concat();
        assert_eq!(single(&locked(&twice)), ["ring is in the tree 2 times instead of once"]);
        assert_eq!(single(&locked(&once[1..])), ["ring is in the tree 0 times instead of once"]);
        assert_eq!(banned_directly(&[member("", &["serde", "lazy_static"])]).len(), 1);
    }

    #[test]
    fn planted_private_versions_and_missing_lints_are_found() {
        let good = "lints.workspace = true\ndependencies.serde.workspace = true";
        assert_eq!(shared(&[member(good, &[])]), Vec::<String>::new());
        let bad = "[dependencies]\nserde = \"1\"\n[dev-dependencies]\nhex = { version = \"0.4\" }";
        assert_eq!(shared(&[member(bad, &[])]).len(), 3);
    }

    #[test]
    fn a_planted_runtime_in_the_pure_part_is_found() {
        assert_eq!(pure(&[member("", &["serde"])]), Vec::<String>::new());
        assert_eq!(pure(&[member("", &["tokio"])]), ["landline-proto needs tokio even without its network"]);
        assert_eq!(pure(&[]).len(), 1);
    }
}
