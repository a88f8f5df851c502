//! Nested JSON arrays into one contiguous vector.

use super::Scanner;
use crate::protocol::{Element, ElementProblem, JsonProblem};

/// Dimensions that a tensor may have.
const MAX_RANK: usize = 16;

/// A regular nested array.
#[derive(Debug, Clone, PartialEq)]
pub struct Nested<T> {
    /// Length at each level; empty for a lone number.
    pub dims: Vec<usize>,
    /// Elements, row-major.
    pub values: Vec<T>,
    /// Whether every number was written as an integer.
    pub integers: bool,
}

/// Why an array could not be read.
#[derive(Debug, Clone, PartialEq)]
pub enum ArrayError {
    /// Not JSON.
    Json(JsonProblem),
    /// JSON, but an element does not fit: its place in row-major order, how it is written, and why.
    Element {
        index: usize,
        text: String,
        problem: ElementProblem,
    },
    /// JSON, but the lists do not have one length per level: the place, the length seen first, and this one.
    Ragged {
        path: String,
        first: String,
        here: String,
    },
}

impl From<JsonProblem> for ArrayError {
    fn from(problem: JsonProblem) -> Self {
        Self::Json(problem)
    }
}

struct Reader<T> {
    dims: Vec<Option<usize>>,
    /// Level at which numbers were seen first.
    leaf: Option<usize>,
    path: Vec<usize>,
    values: Vec<T>,
    integers: bool,
}

/// Reads a nested array of numbers (or truth values). The scanner stands after it, also when an element does not
/// fit; `capacity` is how many elements to make room for.
pub fn read_array<T: Element>(scanner: &mut Scanner<'_>, capacity: usize) -> Result<Nested<T>, ArrayError> {
    let mut reader = Reader {
        dims: Vec::new(),
        leaf: None,
        path: Vec::new(),
        values: Vec::with_capacity(capacity),
        integers: true,
    };
    let start = scanner.position();
    match reader.value(scanner, 0) {
        Ok(()) => {}
        Err(error @ ArrayError::Json(_)) => return Err(error),
        Err(error) => {
            // The rest must still be JSON, which is the more basic complaint.
            *scanner = Scanner::at(scanner.text(), start);
            scanner.skip()?;
            return Err(error);
        }
    }
    Ok(Nested {
        dims: reader
            .dims
            .into_iter()
            .map(|length| length.unwrap_or(0))
            .collect(),
        values: reader.values,
        integers: reader.integers,
    })
}

impl<T: Element> Reader<T> {
    fn value(&mut self, scanner: &mut Scanner<'_>, depth: usize) -> Result<(), ArrayError> {
        if scanner.peek() == Some(b'[') {
            return self.list(scanner, depth);
        }
        self.leaf_level(depth, "a number")?;
        self.element(scanner)
    }

    fn list(&mut self, scanner: &mut Scanner<'_>, depth: usize) -> Result<(), ArrayError> {
        if depth >= MAX_RANK {
            return Err(too_deep(scanner));
        }
        if self.leaf.is_some_and(|leaf| depth >= leaf) {
            return Err(self.ragged("a number", "a list"));
        }
        if self.dims.len() == depth {
            self.dims.push(None);
        }
        scanner.expect(b'[', "an array")?;
        let mut length = 0;
        if !scanner.take(b']') {
            self.path.push(0);
            loop {
                match scanner.peek() {
                    Some(b'[') => self.list(scanner, depth + 1)?,
                    _ => {
                        self.leaf_level(depth + 1, "a number")?;
                        self.element(scanner)?;
                    }
                }
                length += 1;
                if let Some(last) = self.path.last_mut() {
                    *last = length;
                }
                if !scanner.more(b']')? {
                    break;
                }
            }
            self.path.pop();
        }
        match self.dims[depth] {
            None => self.dims[depth] = Some(length),
            Some(first) if first != length => {
                return Err(self.ragged(&format!("{first} elements"), &format!("{length}")));
            }
            Some(_) => {}
        }
        Ok(())
    }

    #[inline]
    fn leaf_level(&mut self, depth: usize, here: &str) -> Result<(), ArrayError> {
        match self.leaf {
            Some(leaf) if leaf == depth => Ok(()),
            None if self.dims.len() == depth => {
                self.leaf = Some(depth);
                Ok(())
            }
            _ => Err(self.ragged("a list", here)),
        }
    }

    fn ragged(&self, first: &str, here: &str) -> ArrayError {
        let path = self.path.iter().map(|at| format!("[{at}]")).collect();
        ArrayError::Ragged {
            path,
            first: first.to_owned(),
            here: here.to_owned(),
        }
    }

    #[inline]
    fn element(&mut self, scanner: &mut Scanner<'_>) -> Result<(), ArrayError> {
        let element = match scanner.peek() {
            Some(b'-' | b'0'..=b'9') => {
                let start = scanner.position();
                let number = scanner.number()?;
                self.integers &= number.integer.is_some();
                match T::from_number(number.value, number.integer) {
                    Ok(element) => element,
                    Err(problem) => {
                        let text = &scanner.text()[start..scanner.position()];
                        return Err(self.misfit(String::from_utf8_lossy(text).into_owned(), problem));
                    }
                }
            }
            Some(b't' | b'f') => {
                let value = scanner.boolean()?;
                self.integers = false;
                T::from_bool(value).map_err(|problem| self.misfit(value.to_string(), problem))?
            }
            Some(b'n') => {
                scanner.literal("null")?;
                self.integers = false;
                T::from_null().map_err(|problem| self.misfit("null".into(), problem))?
            }
            Some(b'"') => {
                let text = scanner.string()?;
                let short: String = text.chars().take(32).collect();
                return Err(self.misfit(format!("{short:?}"), ElementProblem::Kind));
            }
            Some(b'{') => return Err(self.misfit("an object".into(), ElementProblem::Kind)),
            _ => return Err(scanner.fault(scanner.position(), "expected a number").into()),
        };
        self.values.push(element);
        Ok(())
    }

    fn misfit(&self, text: String, problem: ElementProblem) -> ArrayError {
        ArrayError::Element {
            index: self.values.len(),
            text,
            problem,
        }
    }
}

fn too_deep(scanner: &Scanner<'_>) -> ArrayError {
    scanner
        .fault(
            scanner.position(),
            format!("more than {MAX_RANK} levels of nesting"),
        )
        .into()
}

/// Reads a nested array of texts, for BYTES tensors.
pub fn read_bytes_array(scanner: &mut Scanner<'_>) -> Result<Nested<Vec<u8>>, ArrayError> {
    let mut values = Vec::new();
    let mut dims = Vec::new();
    texts(scanner, 0, &mut dims, &mut values)?;
    let dims: Vec<usize> = dims.into_iter().map(|length| length.unwrap_or(0)).collect();
    Ok(Nested {
        dims,
        values,
        integers: false,
    })
}

fn texts(
    scanner: &mut Scanner<'_>,
    depth: usize,
    dims: &mut Vec<Option<usize>>,
    values: &mut Vec<Vec<u8>>,
) -> Result<(), ArrayError> {
    if scanner.peek() != Some(b'[') {
        let start = scanner.position();
        if scanner.peek() == Some(b'"') {
            values.push(scanner.string()?.into_owned().into_bytes());
            return Ok(());
        }
        scanner.skip()?;
        let text = String::from_utf8_lossy(&scanner.text()[start..scanner.position()])
            .chars()
            .take(32)
            .collect();
        return Err(ArrayError::Element {
            index: values.len(),
            text,
            problem: ElementProblem::Kind,
        });
    }
    if depth >= MAX_RANK {
        return Err(too_deep(scanner));
    }
    if dims.len() == depth {
        dims.push(None);
    }
    let mut length = 0;
    scanner.expect(b'[', "an array")?;
    if !scanner.take(b']') {
        loop {
            texts(scanner, depth + 1, dims, values)?;
            length += 1;
            if !scanner.more(b']')? {
                break;
            }
        }
    }
    match dims[depth] {
        Some(first) if first != length => Err(ArrayError::Ragged {
            path: String::new(),
            first: format!("{first} elements"),
            here: length.to_string(),
        }),
        _ => {
            dims[depth] = Some(length);
            Ok(())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Nested<f64>, ArrayError> {
        let mut scanner = Scanner::new(text.as_bytes());
        read_array(&mut scanner, 0)
    }

    #[test]
    fn shapes_come_from_the_nesting() {
        assert_eq!(read("[[1,2.5],[3,null]]").unwrap().dims, [2, 2]);
        assert_eq!(read("[ [ [1] , [2] , [3] ] ]").unwrap().dims, [1, 3, 1]);
        assert_eq!(read("[]").unwrap().dims, [0]);
        assert_eq!(read("[[],[]]").unwrap().dims, [2, 0]);
        assert!(read("[1,2]").unwrap().integers);
        assert!(!read("[1,2.0]").unwrap().integers);
    }

    #[test]
    fn irregular_lists_are_named() {
        let ragged = |path: &str, first: &str, here: &str| {
            Err(ArrayError::Ragged {
                path: path.into(),
                first: first.into(),
                here: here.into(),
            })
        };
        assert_eq!(read("[[1,2],[3]]"), ragged("[1]", "2 elements", "1"));
        assert_eq!(read("[[1,2],3]"), ragged("[1]", "a list", "a number"));
        assert_eq!(read("[1,[2]]"), ragged("[1]", "a number", "a list"));
    }

    #[test]
    fn elements_that_do_not_fit_are_named() {
        let misfit = |index, text: &str, problem| {
            Err(ArrayError::Element {
                index,
                text: text.into(),
                problem,
            })
        };
        assert_eq!(
            read("[[1,2],[\"x\",4]]"),
            misfit(2, "\"x\"", ElementProblem::Kind)
        );
        let mut scanner = Scanner::new(b"[1, 300]");
        assert_eq!(
            read_array::<u8>(&mut scanner, 0),
            Err(ArrayError::Element {
                index: 1,
                text: "300".into(),
                problem: ElementProblem::Range
            })
        );
        assert_eq!(scanner.position(), 8, "the scanner stands after the array");
    }

    #[test]
    fn bad_json_wins_over_bad_elements() {
        assert!(matches!(read("[\"x\", 1"), Err(ArrayError::Json(problem)) if problem.byte == 7));
    }
}
