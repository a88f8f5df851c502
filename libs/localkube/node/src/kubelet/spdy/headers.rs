//! Blocks of names and values (section 2.6.10 of the draft), compressed by one zlib stream per direction.

use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress, Status};

use super::dictionary;

/// Bytes of a block once it is inflated; a few short names are what comes.
const LARGEST: usize = 64 << 10;
const STEP: usize = 4 << 10;

/// Names and values in their order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Headers(pub Vec<(String, String)>);

/// Why a block cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum BadBlock {
    #[error("header block: zlib: {0}")]
    Inflate(#[from] flate2::DecompressError),
    #[error("header block: zlib: {0}")]
    Deflate(#[from] flate2::CompressError),
    #[error("header block: its zlib stream ends or stops short")]
    Short,
    #[error("header block is over {LARGEST} bytes")]
    Large,
    #[error("header block is cut off")]
    Cut,
    #[error("header block has bytes after its last value")]
    Rest,
    #[error("header block is not UTF-8")]
    Text,
}

impl Headers {
    /// The first value of this name, in whatever case the client writes it.
    pub fn get(&self, name: &str) -> Option<&str> {
        let mut all = self.0.iter();
        all.find(|(known, _)| known.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.as_str())
    }

    fn parse(mut plain: &[u8]) -> Result<Self, BadBlock> {
        let count = number(&mut plain)?;
        let mut headers = Vec::new();
        // Each pair takes bytes, so a large count ends with the block.
        for _ in 0..count {
            let name = text(&mut plain)?;
            headers.push((name, text(&mut plain)?));
        }
        if plain.is_empty() {
            Ok(Self(headers))
        } else {
            Err(BadBlock::Rest)
        }
    }

    fn plain(&self) -> Result<Vec<u8>, BadBlock> {
        let length = |count: usize| u32::try_from(count).map_err(|_| BadBlock::Large);
        let mut plain = length(self.0.len())?.to_be_bytes().to_vec();
        for text in self.0.iter().flat_map(|(name, value)| [name, value]) {
            plain.extend_from_slice(&length(text.len())?.to_be_bytes());
            plain.extend_from_slice(text.as_bytes());
        }
        Ok(plain)
    }
}

fn number(plain: &mut &[u8]) -> Result<u32, BadBlock> {
    let (first, rest) = plain.split_first_chunk::<4>().ok_or(BadBlock::Cut)?;
    *plain = rest;
    Ok(u32::from_be_bytes(*first))
}

fn text(plain: &mut &[u8]) -> Result<String, BadBlock> {
    let length = usize::try_from(number(plain)?).map_err(|_| BadBlock::Cut)?;
    let (text, rest) = plain.split_at_checked(length).ok_or(BadBlock::Cut)?;
    *plain = rest;
    String::from_utf8(text.to_vec()).map_err(|_| BadBlock::Text)
}

/// The blocks that come in, in their order: each one needs those before it.
#[derive(Debug)]
pub struct Reader(Decompress);

impl Default for Reader {
    fn default() -> Self {
        Self(Decompress::new(true))
    }
}

impl Reader {
    pub fn read(&mut self, block: &[u8]) -> Result<Headers, BadBlock> {
        Headers::parse(&self.inflate(block)?)
    }

    fn inflate(&mut self, mut block: &[u8]) -> Result<Vec<u8>, BadBlock> {
        let mut plain = Vec::with_capacity(STEP);
        loop {
            let (before, length) = (self.0.total_in(), plain.len());
            let status = self.0.decompress_vec(block, &mut plain, FlushDecompress::Sync);
            let taken = usize::try_from(self.0.total_in() - before).map_err(|_| BadBlock::Short)?;
            block = block.get(taken..).unwrap_or_default();
            match status {
                Err(error) if error.needs_dictionary() == Some(dictionary::ID) => {
                    self.0.set_dictionary(&dictionary::bytes())?;
                    continue;
                }
                Err(error) => return Err(error.into()),
                Ok(Status::StreamEnd) => return Err(BadBlock::Short),
                Ok(Status::Ok | Status::BufError) => {}
            }
            if plain.len() > LARGEST {
                return Err(BadBlock::Large);
            }
            if plain.len() == plain.capacity() {
                plain.reserve(STEP);
            } else if block.is_empty() {
                return Ok(plain);
            } else if taken == 0 && plain.len() == length {
                return Err(BadBlock::Short);
            }
        }
    }
}

/// The blocks that go out.
#[derive(Debug, Default)]
pub struct Writer(Option<Compress>);

impl Writer {
    /// The block, compressed.
    pub fn write(&mut self, headers: &Headers) -> Result<Vec<u8>, BadBlock> {
        let plain = headers.plain()?;
        let mut deflate = match self.0.take() {
            Some(deflate) => deflate,
            None => {
                let mut deflate = Compress::new(Compression::fast(), true);
                deflate.set_dictionary(&dictionary::bytes())?;
                deflate
            }
        };
        let mut block = Vec::with_capacity(STEP);
        let mut rest = plain.as_slice();
        loop {
            let before = deflate.total_in();
            deflate.compress_vec(rest, &mut block, FlushCompress::Sync)?;
            let taken = usize::try_from(deflate.total_in() - before).map_err(|_| BadBlock::Short)?;
            rest = rest.get(taken..).unwrap_or_default();
            if block.len() < block.capacity() && rest.is_empty() {
                break;
            }
            block.reserve(STEP);
        }
        self.0 = Some(deflate);
        Ok(block)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn headers(pairs: &[(&str, &str)]) -> Headers {
        Headers(
            pairs
                .iter()
                .map(|(a, b)| ((*a).to_owned(), (*b).to_owned()))
                .collect(),
        )
    }

    #[test]
    fn the_dictionary_is_the_one_that_clients_name() {
        let mut deflate = Compress::new(Compression::fast(), true);
        let bytes = dictionary::bytes();
        assert_eq!(bytes.len(), 1423);
        assert_eq!(deflate.set_dictionary(&bytes).unwrap(), dictionary::ID);
    }

    #[test]
    fn a_block_needs_those_before_it() {
        let (mut writer, mut reader) = (Writer::default(), Reader::default());
        let first = headers(&[("streamtype", "error"), ("port", "8080"), ("requestid", "0")]);
        let second = headers(&[("streamtype", "data"), ("port", "8080"), ("requestid", "0")]);
        let blocks = [writer.write(&first).unwrap(), writer.write(&second).unwrap()];
        assert!(blocks[1].len() < blocks[0].len());
        assert_eq!(reader.read(&blocks[0]).unwrap(), first);
        assert_eq!(reader.read(&blocks[1]).unwrap(), second);
        assert_eq!(first.get("StreamType"), Some("error"));
        assert!(Reader::default().read(&blocks[1]).is_err(), "out of order");
    }

    #[test]
    fn a_block_that_inflates_without_end_is_refused() {
        let bomb = headers(&[("a", &"x".repeat(1 << 20))]);
        let block = Writer::default().write(&bomb).unwrap();
        assert!(block.len() < LARGEST);
        assert!(matches!(Reader::default().read(&block), Err(BadBlock::Large)));
    }

    #[test]
    fn a_count_or_length_that_lies_is_refused() {
        assert!(matches!(Headers::parse(&[255; 4]), Err(BadBlock::Cut)));
        assert!(matches!(
            Headers::parse(&[0, 0, 0, 1, 255, 255, 255, 255]),
            Err(BadBlock::Cut)
        ));
        assert!(matches!(Headers::parse(&[0, 0, 0, 0, 1]), Err(BadBlock::Rest)));
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(blocks in prop::collection::vec(prop::collection::vec((".{0,20}", ".{0,300}"), 0..6), 1..6)) {
            let (mut writer, mut reader) = (Writer::default(), Reader::default());
            for block in blocks {
                let headers = Headers(block);
                prop_assert_eq!(reader.read(&writer.write(&headers).unwrap()).unwrap(), headers);
            }
        }

        #[test]
        fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            drop(Headers::parse(&bytes));
            drop(Reader::default().read(&bytes));
        }
    }
}
