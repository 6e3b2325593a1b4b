//! Use lock files in temporary directories, and do not touch `/run`.

use super::*;
use crate::exit::exit_code;
use std::process::{Command, Stdio};

#[test]
fn one_engine_and_no_second() {
    let dir = tempfile::tempdir().unwrap();
    assert_eq!(holder_in(dir.path()).unwrap(), None);
    let lock = EngineLock::acquire_in(dir.path()).unwrap();
    let pid = std::process::id();
    assert_eq!(holder_in(dir.path()).unwrap(), Some(pid));
    let error = EngineLock::acquire_in(dir.path()).unwrap_err();
    assert_eq!(exit_code(&error), 123);
    assert_eq!(
        error.to_string(),
        format!("an engine is already running (pid {pid}): stop it with \"memstock stop\"")
    );
    drop(lock);
    assert!(!dir.path().join(LOCK_FILE).exists());
    assert_eq!(holder_in(dir.path()).unwrap(), None);
    drop(EngineLock::acquire_in(dir.path()).unwrap());
}

#[test]
fn nobody_else_can_lock_it() {
    use std::os::unix::fs::PermissionsExt as _;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(LOCK_FILE);
    let mode = || fs::metadata(&path).unwrap().permissions().mode() & 0o777;
    drop(EngineLock::acquire_in(dir.path()).unwrap());
    fs::write(&path, "").unwrap();
    fs::set_permissions(&path, Permissions::from_mode(0o644)).unwrap();
    let _lock = EngineLock::acquire_in(dir.path()).unwrap();
    assert_eq!(mode(), 0o600, "one of an older version");
}

#[test]
fn a_dead_holders_file_is_taken_over() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(LOCK_FILE);
    fs::write(&path, "1234567890123\n").unwrap();
    assert_eq!(holder_in(dir.path()).unwrap(), None);
    let lock = EngineLock::acquire_in(dir.path()).unwrap();
    assert_eq!(fs::read_to_string(&path).unwrap(), format!("{}\n", std::process::id()));
    drop(lock);
}

#[test]
fn notes_outlive_their_holders_but_not_the_boot() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(LOCK_FILE);
    let mut lock = EngineLock::acquire_in(dir.path()).unwrap();
    assert!(!lock.has_notes());
    lock.note_cgroup(77).unwrap();
    assert_eq!(holder_in(dir.path()).unwrap(), Some(std::process::id()));
    // As if it could not clean up, or was killed.
    drop(lock);
    let left = fs::read_to_string(&path).unwrap();
    let mut lock = EngineLock::acquire_in(dir.path()).unwrap();
    lock.note_cgroup(1 << 40).unwrap();
    assert_eq!(lock.noted(), [77, 1 << 40]);
    lock.forget(|id| id == 77).unwrap();
    drop(lock);
    let mut lock = EngineLock::acquire_in(dir.path()).unwrap();
    assert_eq!(lock.noted(), [1 << 40]);
    lock.forget(|_| true).unwrap();
    drop(lock);
    assert!(!path.exists());
    for text in [left.replace(boot_id().unwrap().as_str(), "another"), "1\n77\n".into()] {
        fs::write(&path, text).unwrap();
        assert!(!EngineLock::acquire_in(dir.path()).unwrap().has_notes());
    }
}

#[test]
fn what_is_about_to_be_made_is_noted() {
    let dir = tempfile::tempdir().unwrap();
    let mut lock = EngineLock::acquire_in(dir.path()).unwrap();
    lock.note_making(Path::new("/a b/c")).unwrap();
    drop(lock);
    let mut lock = EngineLock::acquire_in(dir.path()).unwrap();
    assert_eq!((lock.noted(), lock.making()), (&[][..], Some(Path::new("/a b/c"))));
    lock.note_cgroup(5).unwrap();
    drop(lock);
    let lock = EngineLock::acquire_in(dir.path()).unwrap();
    assert_eq!((lock.noted(), lock.making()), (&[5][..], None));
}

/// The rest of an older, longer text remains if a holder is killed before it truncates the file.
#[test]
fn the_rest_of_an_older_text_notes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let boot = boot_id().unwrap();
    let (old, new) = (format!("1234567\n77 {boot}\n"), format!("1\n77 {boot}\n"));
    let text = format!("{new}{}", &old[new.len()..]);
    fs::write(dir.path().join(LOCK_FILE), text).unwrap();
    assert_eq!(EngineLock::acquire_in(dir.path()).unwrap().noted(), [77]);
}

#[test]
fn a_text_that_the_kernel_does_not_confirm_is_not_believed() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(LOCK_FILE);
    let lock = EngineLock::acquire_in(dir.path()).unwrap();
    fs::write(&path, "1\n").unwrap();
    let error = holder_in(dir.path()).unwrap_err().to_string();
    assert!(error.contains("is locked by an unknown process"), "{error}");
    let error = EngineLock::acquire_in(dir.path()).unwrap_err().to_string();
    assert!(error.starts_with("an engine is already running: "), "{error}");
    drop(lock);
}

#[test]
fn a_successors_file_is_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(LOCK_FILE);
    let first = EngineLock::acquire_in(dir.path()).unwrap();
    fs::remove_file(&path).unwrap();
    let second = EngineLock::acquire_in(dir.path()).unwrap();
    drop(first);
    assert!(path.exists());
    drop(second);
    assert!(!path.exists());
}

#[test]
fn another_process_is_seen_and_its_death_frees_the_lock() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(LOCK_FILE);
    // The shell locks descriptor 9 through flock(1), so the kernel lists flock's pid; exec keeps it.
    let mut other = Command::new("flock")
        .args(["--exclusive", "--no-fork"])
        .arg(&path)
        .args(["sh", "-c", "echo $$ > \"$0\"; echo up; read line"])
        .arg(&path)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut up = [0; 3];
    other.stdout.take().unwrap().read_exact(&mut up).unwrap();
    assert_eq!(holder_in(dir.path()).unwrap(), Some(other.id()));
    let error = EngineLock::acquire_in(dir.path()).unwrap_err().to_string();
    assert!(error.contains(&format!("(pid {})", other.id())), "{error}");
    other.kill().unwrap();
    other.wait().unwrap();
    assert_eq!(holder_in(dir.path()).unwrap(), None);
    drop(EngineLock::acquire_in(dir.path()).unwrap());
}

#[test]
fn many_at_once_make_one() {
    let dir = tempfile::tempdir().unwrap();
    for _ in 0..50 {
        let won: Vec<_> = std::thread::scope(|scope| {
            let tries: Vec<_> =
                (0..4).map(|_| scope.spawn(|| EngineLock::acquire_in(dir.path()).ok())).collect();
            tries.into_iter().filter_map(|one| one.join().unwrap()).collect()
        });
        assert_eq!(won.len(), 1);
    }
}

#[test]
fn only_an_exclusive_flock_counts() {
    let info = |lock: &str| format!("pos:\t0\nflags:\t02\n{lock}\n");
    let line = "lock:\t1: FLOCK  ADVISORY  WRITE 8 00:19:42 0 EOF";
    assert!(has_exclusive_lock(&info(line)));
    assert!(!has_exclusive_lock(&info("")));
    assert!(!has_exclusive_lock(&info(&line.replace("WRITE", "READ"))));
    assert!(!has_exclusive_lock(&info(&line.replace("FLOCK", "POSIX"))));
}
