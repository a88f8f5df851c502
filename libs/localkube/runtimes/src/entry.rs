//! What a container finds as `python3`: a file of one line, `#!<stubs>/bin/python-entry <venv>/bin/python3.N`.
//!
//! KFP and Katib wrap every command in `python3 -m pip install ...`. An interpreter that starts only to leave for our `pip` costs ten
//! milliseconds; this entry goes there at once and becomes the interpreter for everything else.

use std::ffi::OsString;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Name by which our executable is the entry.
pub const NAME: &str = "python-entry";
/// The kernel reads so much of a file's first line.
const LONGEST_LINE: usize = 255;

/// Puts an entry at `path` that leads to `interpreter`; leaves what is there where the line would be too long or ambiguous.
pub fn write(path: &Path, stub: &Path, interpreter: &Path) -> io::Result<()> {
    let Some(line) = line(stub, interpreter) else {
        return Ok(());
    };
    std::fs::remove_file(path)?;
    std::fs::write(path, line)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755))
}

fn line(stub: &Path, interpreter: &Path) -> Option<String> {
    let (stub, interpreter) = (stub.to_str()?, interpreter.to_str()?);
    let line = format!("#!{stub} {interpreter}\n");
    let plain = !stub.contains(char::is_whitespace) && !interpreter.contains(char::is_whitespace);
    (plain && line.len() <= LONGEST_LINE).then_some(line)
}

/// The process's arguments as `pip` is to see them. Called as an entry for anything but `-m pip`, the process becomes the interpreter
/// and this does not return.
pub fn arguments() -> Box<dyn Iterator<Item = String>> {
    let mut words = std::env::args_os();
    let name = words.next().unwrap_or_default();
    if Path::new(&name).file_name().is_none_or(|file| file != NAME) {
        return Box::new(std::env::args());
    }
    let interpreter = PathBuf::from(words.next().unwrap_or_default());
    let rest: Vec<OsString> = words.skip(1).collect();
    match pip(&interpreter, &rest) {
        Some(words) => Box::new(words.into_iter()),
        None => {
            let error = Command::new(&interpreter).args(&rest).exec();
            eprintln!("{}: {error}", interpreter.display());
            std::process::exit(127)
        }
    }
}

/// `-m pip ...` as a call of `pip` for the interpreter's environment.
fn pip(interpreter: &Path, rest: &[OsString]) -> Option<Vec<String>> {
    let [flag, module, more @ ..] = rest else {
        return None;
    };
    if flag.as_bytes() != b"-m" || module.as_bytes() != b"pip" {
        return None;
    }
    let root = interpreter.parent()?.parent()?.to_str()?.to_owned();
    let own = ["pip".to_owned(), "--ferroflow-venv".to_owned(), root];
    let more = more.iter().map(|word| word.to_string_lossy().into_owned());
    Some(own.into_iter().chain(more).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(words: &[&str]) -> Vec<OsString> {
        words.iter().map(OsString::from).collect()
    }

    #[test]
    fn only_the_module_pip_goes_to_our_pip() {
        let python = Path::new("/v/bin/python3.11");
        let called = pip(python, &words(&["-m", "pip", "install", "x"])).unwrap();
        assert_eq!(called, ["pip", "--ferroflow-venv", "/v", "install", "x"]);
        for other in [
            &["-m", "pipx"][..],
            &["-c", "pip"],
            &["-u", "-m", "pip"],
            &["-m"],
            &[],
        ] {
            assert_eq!(pip(python, &words(other)), None, "{other:?}");
        }
    }

    #[test]
    fn a_line_that_the_kernel_would_cut_is_not_written() {
        let stub = Path::new("/stubs/bin/python-entry");
        assert_eq!(
            line(stub, Path::new("/v/bin/python3.11")).unwrap(),
            "#!/stubs/bin/python-entry /v/bin/python3.11\n"
        );
        assert_eq!(line(stub, &Path::new("/").join("x".repeat(250))), None);
        assert_eq!(line(stub, Path::new("/a b/python3.11")), None);
    }
}
