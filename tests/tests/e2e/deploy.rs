//! What lies in deploy/ against the programs it is for: promtool, systemd, a linter of Dockerfiles; and the names in alerts
//! and dashboard against the metrics of a real master.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    process::{Command, Output},
};

use landline::metrics::Metrics;
use landline_tests::{master::Master, tools::tool};
use serde_json::Value;

fn deploy(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy").join(path)
}

fn read(path: &str) -> String {
    std::fs::read_to_string(deploy(path)).unwrap()
}

fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

#[test]
fn promtool_accepts_scrape_and_rules_and_each_alert_has_its_test() {
    for arguments in [
        ["check", "config", "prometheus.yml"].as_slice(),
        &["check", "rules", "landline.rules.yml"],
        &["test", "rules", "landline.test.yml"],
    ] {
        let mut promtool = Command::new(tool("promtool"));
        let output = promtool.args(arguments).current_dir(deploy("prometheus")).output().unwrap();
        assert!(output.status.success(), "{arguments:?}: {}", said(&output));
    }
    let (rules, tests, manual) = (
        read("prometheus/landline.rules.yml"),
        read("prometheus/landline.test.yml"),
        include_str!("../../../docs/OPERATIONS.md"),
    );
    let alerts: Vec<_> = rules.lines().filter_map(|line| line.trim().strip_prefix("- alert: ")).collect();
    assert!(alerts.len() >= 10);
    for alert in alerts {
        assert!(tests.contains(&format!("alertname: {alert}\n")), "{alert} is never seen to fire");
        assert!(manual.contains(&format!("| `{alert}` |")), "docs/OPERATIONS.md lacks {alert}");
    }
}

/// One name in an expression, with the labels that stand beside it.
struct Named {
    name: String,
    labels: BTreeSet<String>,
}

/// Metric names with their selectors' labels, and every label that something is grouped by.
fn names(expression: &str) -> (Vec<Named>, BTreeSet<String>) {
    let word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let (mut found, mut grouped) = (Vec::new(), BTreeSet::new());
    for prefix in ["landline_", "process_"] {
        for (at, _) in expression.match_indices(prefix) {
            if expression[..at].ends_with(word) {
                continue;
            }
            let rest = &expression[at..];
            let (name, behind) = rest.split_at(rest.find(|c| !word(c)).unwrap_or(rest.len()));
            let selector =
                behind.strip_prefix('{').and_then(|rest| rest.split_once('}')).map_or("", |(inside, _)| inside);
            let label = |term: &str| term.split(['=', '!']).next().unwrap_or_default().trim().to_owned();
            let labels = selector.split(',').map(label).filter(|label| !label.is_empty()).collect();
            found.push(Named { name: name.to_owned(), labels });
        }
    }
    for (at, _) in expression.match_indices("by (") {
        let inside = expression[at + 4..].split(')').next().unwrap_or_default();
        grouped.extend(inside.split(',').map(|label| label.trim().to_owned()));
    }
    (found, grouped)
}

/// The declared metric behind a name of the exposition: histograms have three.
fn declared<'a>(described: &'a BTreeMap<String, BTreeSet<String>>, name: &str) -> Option<&'a BTreeSet<String>> {
    let base = ["_bucket", "_sum", "_count"].iter().find_map(|ending| name.strip_suffix(ending));
    described.get(name).or_else(|| base.and_then(|base| described.get(base)))
}

fn expressions(value: &Value, into: &mut Vec<String>) {
    match value {
        Value::Object(fields) => {
            for (name, value) in fields {
                match value {
                    Value::String(text) if name == "expr" => into.push(text.clone()),
                    other => expressions(other, into),
                }
            }
        }
        Value::Array(items) => items.iter().for_each(|item| expressions(item, into)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

/// What the master declares is what it shows, or what it will show with its first sample; alerts and dashboard name
/// nothing else, under no other label.
#[tokio::test(flavor = "multi_thread")]
async fn alerts_and_dashboard_name_metrics_that_exist() {
    let described: BTreeMap<_, BTreeSet<_>> = Metrics::new()
        .unwrap()
        .described()
        .iter()
        .map(|metric| (metric.name.clone(), metric.labels.iter().cloned().collect()))
        .collect();
    let master = Master::start().await;
    let _agent = master.agent("measured").await;
    let url = format!("http://127.0.0.1:{}/metrics", master.metrics_port);
    let text = reqwest::get(&url).await.unwrap().text().await.unwrap();
    let shown: BTreeSet<_> = text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next()).collect();
    for name in &shown {
        assert!(described.contains_key(*name), "{name} is shown and not declared");
    }
    for (name, labels) in &described {
        assert!(shown.contains(name.as_str()) || !labels.is_empty(), "{name} is declared and never shown");
    }
    for line in text.lines().filter(|line| line.starts_with("landline_")) {
        let (named, _) = names(line);
        let labels = declared(&described, &named[0].name).unwrap_or_else(|| panic!("{line}"));
        let own: BTreeSet<_> = named[0].labels.iter().filter(|label| *label != "le").cloned().collect();
        assert_eq!(&own, labels, "{line}");
    }

    let dashboard: Value = serde_json::from_str(&read("grafana/landline.json")).unwrap();
    let mut used = Vec::new();
    expressions(&dashboard, &mut used);
    assert!(used.len() > 30);
    let rules = read("prometheus/landline.rules.yml");
    let rules = rules.split("- alert:").map(|rule| rule.split("annotations:").next().unwrap_or_default().to_owned());
    used.extend(rules.skip(1));
    let common = ["instance", "job", "le"].map(str::to_owned);
    let mut mentioned = BTreeSet::new();
    for expression in used {
        let (named, grouped) = names(&expression);
        let mut known = BTreeSet::from(common.clone());
        for Named { name, labels } in named {
            let own = declared(&described, &name).unwrap_or_else(|| panic!("{name} does not exist: {expression}"));
            let foreign: Vec<_> =
                labels.iter().filter(|label| !own.contains(*label) && !common.contains(label)).collect();
            assert!(foreign.is_empty(), "{name} has no label {foreign:?}: {expression}");
            known.extend(own.iter().cloned());
            mentioned.insert(name);
        }
        assert!(grouped.is_subset(&known), "{grouped:?} in {expression}");
    }
    for name in described.keys().filter(|name| name.starts_with("landline_")) {
        let there = mentioned.iter().any(|mentioned| mentioned.starts_with(name.as_str()));
        assert!(there, "{name} stands in no panel");
    }
}

/// The unit is as closed as it says, and systemd understands every line.
#[test]
fn the_masters_unit_is_closed() {
    let unit = deploy("systemd/landline.service");
    let output = Command::new("systemd-analyze")
        .args(["security", "--offline=true", "--threshold=20", "--no-pager"])
        .arg(&unit)
        .output()
        .unwrap();
    assert!(output.status.success(), "exposure above 2.0: {}", said(&output));
    // The binary is not installed here; nothing else may be wrong.
    let folder = tempfile::tempdir().unwrap();
    let own = folder.path().join("landline.service");
    std::fs::write(&own, read("systemd/landline.service").replace("/usr/local/bin/landline ", "/bin/true ")).unwrap();
    let output = Command::new("systemd-analyze").args(["verify", "--man=no"]).arg(&own).output().unwrap();
    let mistakes: Vec<_> =
        said(&output).lines().filter(|line| line.contains("landline.service")).map(str::to_owned).collect();
    assert!(mistakes.is_empty(), "{mistakes:#?}");
}

/// No engine runs here: what is tested is what a linter and a reader of YAML can tell, and that what is copied is there.
#[test]
fn the_container_is_as_good_as_can_be_told_without_an_engine() {
    let linted = Command::new(tool("hadolint")).arg(deploy("container/Dockerfile")).output().unwrap();
    assert!(linted.status.success(), "{}", said(&linted));
    let program = "import json, sys, yaml; print(json.dumps(yaml.safe_load(open(sys.argv[1]))))";
    let read =
        Command::new(tool("python3")).args(["-c", program]).arg(deploy("container/compose.yaml")).output().unwrap();
    assert!(read.status.success(), "{}", said(&read));
    let compose: serde_json::Value = serde_json::from_slice(&read.stdout).unwrap();
    let master = &compose["services"]["master"];
    assert_eq!((&master["read_only"], &master["cap_drop"][0]), (&true.into(), &"ALL".into()), "{compose}");
    assert_eq!(master["build"]["dockerfile"], "deploy/container/Dockerfile");
    let dockerfile = std::fs::read_to_string(deploy("container/Dockerfile")).unwrap();
    assert!(dockerfile.contains("\nUSER 7443\n") && dockerfile.contains("HEALTHCHECK"));
    for line in dockerfile.lines().filter(|line| line.starts_with("COPY ") && !line.contains("--from=")) {
        let source = line.split_whitespace().nth(1).unwrap();
        assert!(deploy("..").join(source).exists(), "{source} is copied and not there");
    }
}
