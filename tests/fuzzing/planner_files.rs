//! Plans of files: empty once applied, and never what the rules of ownership forbid.

use std::collections::{BTreeMap, BTreeSet};

use openclaw_controller::model::{FileName, FileWrite, TOKEN_SENTINEL};
use openclaw_controller::plan::{AgentGoal, FilePolicy, ObservedFile, ObservedFiles, plan_agent};
use openclaw_controller::sim::SimDialect;
use proptest::prelude::*;

fn file() -> impl Strategy<Value = FileName> {
    prop::sample::select(FileName::ALL.to_vec())
}

fn text() -> impl Strategy<Value = String> {
    prop_oneof![
        "[a-z \n\r]{0,12}",
        Just(format!("- `AUTH_TOKEN={TOKEN_SENTINEL}`")),
        "\\PC{0,8}",
    ]
}

fn observed() -> impl Strategy<Value = ObservedFiles> {
    let found = prop_oneof![
        Just(ObservedFile::Missing),
        (text(), prop::option::of("[a-f0-9]{4}")).prop_map(|(text, hash)| ObservedFile::present(&text, hash)),
    ];
    prop::collection::btree_map(file(), found, 0..9)
}

fn policy() -> impl Strategy<Value = FilePolicy> {
    any::<[bool; 5]>().prop_map(
        |[is_main, first_provisioning, force_bootstrap, overwrite, has_token]| FilePolicy {
            is_main,
            first_provisioning,
            force_bootstrap,
            overwrite,
            has_token,
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn a_plan_of_files_is_empty_once_applied_and_keeps_to_the_rules(
        files in prop::collection::btree_map(file(), text(), 0..9),
        observed in observed(),
        policy in policy(),
        dialect in prop::sample::select(SimDialect::ALL.to_vec()),
    ) {
        let dialect = dialect.expected();
        let goal = AgentGoal { files: &files, policy };
        let plan = plan_agent(&goal, &observed, &dialect);
        prop_assert_eq!(&plan, &plan_agent(&goal, &observed, &dialect), "the same again");

        let mut after = observed.clone();
        let mut written = BTreeSet::new();
        for step in &plan.files {
            prop_assert!(written.insert(step.file), "{} is written once", step.file);
            let have = &observed[&step.file];
            prop_assert_eq!(Some(&step.text), files.get(&step.file), "what was rendered");
            prop_assert!(dialect.has_file(step.file), "{} is taken by the gateway", step.file);
            prop_assert!(policy.has_token || !step.text.contains(TOKEN_SENTINEL));
            let exists = *have != ObservedFile::Missing;
            prop_assert_eq!(step.write, if exists { FileWrite::Replace } else { FileWrite::Create });
            let hash = match have {
                ObservedFile::Present { gateway_hash, .. } => gateway_hash.clone(),
                ObservedFile::Missing => None,
            };
            prop_assert_eq!(&step.expected_hash, &hash);
            let allowed = match step.file {
                FileName::User => !exists || policy.is_main || policy.overwrite,
                FileName::Memory => !exists || policy.overwrite,
                FileName::Bootstrap => exists || policy.first_provisioning || policy.force_bootstrap,
                _ => true,
            };
            prop_assert!(allowed, "{} belongs to the agent", step.file);
            after.insert(step.file, ObservedFile::present(&step.text, None));
        }
        let again = plan_agent(&goal, &after, &dialect);
        prop_assert!(again.is_empty(), "{:?}", again.files);
        prop_assert_eq!(again.warnings, plan.warnings);
    }

    #[test]
    fn a_file_that_reads_back_as_written_or_with_line_breaks_at_its_end_is_not_written(
        texts in prop::collection::btree_map(file(), text(), 1..9),
        end in prop::sample::select(vec!["", "\n", "\r\n", "\n\n"]),
        policy in policy(),
    ) {
        let goal = AgentGoal { files: &texts, policy };
        let observed: BTreeMap<_, _> = texts
            .iter()
            .map(|(file, text)| (*file, ObservedFile::present(&format!("{text}{end}"), None)))
            .collect();
        for dialect in SimDialect::ALL {
            let plan = plan_agent(&goal, &observed, &dialect.expected());
            prop_assert!(plan.is_empty(), "{:?}", plan.files);
        }
    }
}
