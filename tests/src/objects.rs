//! What is loaded into the kernel: nothing of it may be left when an agent has ended.

use std::{collections::BTreeSet, process::Command};

use crate::{eventually, run};

/// Programs, maps and links, as `bpftool` lists them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Objects(BTreeSet<String>);

impl Objects {
    /// Those of now.
    pub fn now() -> Self {
        let mut all = BTreeSet::new();
        for kind in ["prog", "map", "link"] {
            let output = run(Command::new("bpftool").args(["--json", kind, "list"]));
            let said = String::from_utf8_lossy(&output.stderr);
            assert!(output.status.success(), "bpftool {kind} list: {said}");
            let list: Vec<serde_json::Value> =
                serde_json::from_slice(&output.stdout).expect("bpftool prints a list");
            all.extend(list.iter().map(|entry| format!("{kind} {} {}", entry["id"], entry["name"])));
        }
        Self(all)
    }

    /// How many there are that weren't there before.
    pub fn beyond(&self, before: &Self) -> usize {
        self.0.difference(&before.0).count()
    }

    /// Waits until there are no others: the kernel frees some a moment later.
    pub fn wait_for(&self) {
        eventually("the kernel has freed everything", || (Self::now().beyond(self) == 0).then_some(()));
    }
}
