//! Little address space: `ulimit -v`, or a kernel that has not more.

use syncline_tests::process::{Process, binary};
use tokio::process::Command;

use crate::cli::{data_folder, enter, path_of};

/// Less than the memories of 256 instances reach, and enough for what they may use.
const KIB: u32 = 300 << 20;

#[tokio::test]
async fn with_little_address_space_memory_accesses_are_checked_and_all_is_served() {
    let folder = data_folder();
    let mut command = Command::new("sh");
    command.args(["-c", &format!("ulimit -v {KIB} && exec \"$0\" \"$@\"")]).arg(binary());
    command.args(["serve", "--listen", "127.0.0.1:0", "--data", path_of(&folder)]).kill_on_drop(true);
    let process = Process::spawn(command).await;
    enter(&process, "/secsync/d?sessionKey=k").await.0.close().await;
    assert_eq!(process.terminate().await, 0);
}
