//! Examples of the repository do what they say.

use syncline_tests::DEADLINE;
use syncline_tests::process::example;
use tokio::process::Command;

/// Built with the tests, beside them.
#[tokio::test]
async fn a_program_with_an_executor_of_its_own_serves_counts_and_refuses() {
    let program = example("embed");
    let mut command = Command::new(&program);
    let output = tokio::time::timeout(DEADLINE, command.kill_on_drop(true).output()).await.expect("it ends within the deadline");
    let output = output.unwrap_or_else(|error| panic!("{}: {error}", program.display()));
    let said = String::from_utf8_lossy(&output.stdout);
    let failed = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}{failed}");
    let lines: Vec<_> = said.lines().collect();
    let [story @ .., counted] = &lines[..] else { panic!("it says nothing") };
    let expected = [
        "opened a document",
        "snapshot-saved",
        "update-saved 0",
        "update-saved 1",
        "update-saved 2",
        "read-only now: closed with 1013",
        "the document can be read, with 3 updates",
        "written again: update-saved",
    ];
    assert_eq!(story, expected);
    let numbers: Vec<u64> = counted.split(' ').filter_map(|word| word.parse().ok()).collect();
    let [queries, statements, commits, refused] = numbers[..] else { panic!("{counted}") };
    assert!(queries > 0 && statements >= commits && commits >= 5, "{counted}");
    assert!(refused >= 1, "{counted}");
}
