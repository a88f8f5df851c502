//! JSON as tensors need it: arrays of numbers go straight from the bytes into one contiguous vector.

mod array;
mod scan;
mod write;

pub use array::{ArrayError, Nested, read_array, read_bytes_array};
pub use scan::Scanner;
pub use write::{write_data, write_shape, write_string};
