//! Which file of a model folder is the model, and of what format.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

/// Formats this server runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// XGBoost's JSON or UBJSON.
    Xgboost,
    /// ONNX graphs.
    Onnx,
    /// scikit-learn pickles and joblib files.
    Sklearn,
}

impl Format {
    fn extensions(self) -> &'static [&'static str] {
        match self {
            Self::Xgboost => &["json", "ubj", "bst", "xgb"],
            Self::Onnx => &["onnx"],
            Self::Sklearn => &["joblib", "pkl", "pickle"],
        }
    }
}

/// Why no single model file was found.
#[derive(Debug, thiserror::Error)]
pub enum FindError {
    /// The folder cannot be read.
    #[error("cannot read the model folder {path}: {source}")]
    Read { path: String, source: std::io::Error },
    /// Nothing that looks like a model.
    #[error(
        "no model in {path}: found {found}, expected one file that ends in {expected}, or one file alone"
    )]
    None {
        path: String,
        found: String,
        expected: String,
    },
    /// More than one.
    #[error("more than one model in {path}: {found}; point the storageUri at one of them")]
    Several { path: String, found: String },
}

/// Finds the model file. `path` may be the file itself. With no format given, the name or the first bytes decide.
pub fn find(path: &Path, format: Option<Format>) -> Result<(PathBuf, Format), FindError> {
    if path.is_file() {
        return Ok((path.to_path_buf(), format.unwrap_or_else(|| sniff(path))));
    }
    let read = |source| FindError::Read {
        path: path.display().to_string(),
        source,
    };
    let mut files = Vec::new();
    for entry in std::fs::read_dir(path).map_err(read)? {
        let file = entry.map_err(read)?.path();
        let hidden = file
            .file_name()
            .is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
        if file.is_file() && !hidden {
            files.push(file);
        }
    }
    files.sort();
    let formats = match format {
        Some(format) => vec![format],
        None => vec![Format::Xgboost, Format::Onnx, Format::Sklearn],
    };
    let extensions: Vec<&str> = formats
        .iter()
        .flat_map(|format| format.extensions())
        .copied()
        .collect();
    let named: Vec<&PathBuf> = files
        .iter()
        .filter(|file| {
            file.extension()
                .is_some_and(|extension| extensions.iter().any(|known| extension == *known))
        })
        .collect();
    let list = |files: &[&PathBuf]| {
        let names = files.iter().filter_map(|file| file.file_name());
        let names: Vec<String> = names.map(|name| name.to_string_lossy().into_owned()).collect();
        if names.is_empty() {
            "no files".to_owned()
        } else {
            names.join(", ")
        }
    };
    let chosen = match (named.as_slice(), files.as_slice()) {
        ([one], _) => (*one).clone(),
        ([], [one]) => one.clone(),
        ([], _) => {
            return Err(FindError::None {
                path: path.display().to_string(),
                found: list(&files.iter().collect::<Vec<_>>()),
                expected: extensions
                    .iter()
                    .map(|name| format!(".{name}"))
                    .collect::<Vec<_>>()
                    .join(" or "),
            });
        }
        (several, _) => {
            return Err(FindError::Several {
                path: path.display().to_string(),
                found: list(several),
            });
        }
    };
    let format = format.unwrap_or_else(|| sniff(&chosen));
    Ok((chosen, format))
}

fn sniff(path: &Path) -> Format {
    let extension = path
        .extension()
        .and_then(|extension| extension.to_str())
        .unwrap_or("");
    for format in [Format::Xgboost, Format::Onnx, Format::Sklearn] {
        if format.extensions().contains(&extension) {
            return format;
        }
    }
    let mut head = [0u8; 16];
    let read = File::open(path)
        .and_then(|mut file| file.read(&mut head))
        .unwrap_or(0);
    match head[..read].trim_ascii_start() {
        [b'{', ..] => Format::Xgboost,
        // Protocol 2 and later of pickle, zlib and gzip around it.
        [0x80, 2..=5, ..] | [0x78, ..] | [0x1f, 0x8b, ..] => Format::Sklearn,
        _ => Format::Onnx,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_file_is_chosen_and_two_are_named() {
        let folder = tempfile::tempdir().unwrap();
        let error = find(folder.path(), Some(Format::Xgboost))
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("found no files, expected one file that ends in .json or .ubj"),
            "{error}"
        );
        std::fs::write(folder.path().join("model"), "{\"learner\"").unwrap();
        assert_eq!(find(folder.path(), None).unwrap().1, Format::Xgboost);
        std::fs::write(folder.path().join("notes.txt"), "").unwrap();
        assert!(matches!(find(folder.path(), None), Err(FindError::None { .. })));
        std::fs::write(folder.path().join("a.onnx"), "").unwrap();
        assert_eq!(
            find(folder.path(), None).unwrap(),
            (folder.path().join("a.onnx"), Format::Onnx)
        );
        std::fs::write(folder.path().join("b.onnx"), "").unwrap();
        let error = find(folder.path(), None).unwrap_err().to_string();
        assert!(
            error.contains("more than one model") && error.contains("a.onnx, b.onnx"),
            "{error}"
        );
    }
}
