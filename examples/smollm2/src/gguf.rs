//! GGUF, the file format of the weights: numbers and texts by name, then tensors by name.
//! (<https://github.com/ggml-org/ggml/blob/master/docs/gguf.md>)

use std::collections::HashMap;

use crate::Result;

/// A file in memory.
pub struct Gguf {
    metadata: HashMap<String, Value>,
    tensors: HashMap<String, Tensor>,
    bytes: Vec<u8>,
    /// Where the tensors' data begins.
    data: usize,
}

/// A value of the metadata.
pub enum Value {
    /// Integers and booleans.
    Integer(u64),
    /// f32 and f64.
    Float(f64),
    /// UTF-8.
    Text(String),
    /// Values of one kind.
    List(Vec<Value>),
}

/// Where a tensor lies and how its numbers are stored.
struct Tensor {
    /// Innermost first: a matrix is [columns, rows].
    dims: Vec<usize>,
    storage: u32,
    offset: usize,
}

/// A tensor as it lies in the file.
pub struct TensorBytes<'a> {
    /// Contiguous numbers in a row.
    pub cols: usize,
    /// Rows; 1 for a vector.
    pub rows: usize,
    /// The number that the format gives to the storage type.
    pub storage: u32,
    /// From the tensor's first byte to the end of the file.
    pub bytes: &'a [u8],
}

impl Gguf {
    /// Reads the directory of a file of version 2 or 3.
    pub fn parse(bytes: Vec<u8>) -> Result<Self> {
        let mut reader = Reader { bytes: &bytes, at: 0 };
        if reader.take(4)? != b"GGUF" || !(2..=3).contains(&reader.u32()?) {
            return Err("not a GGUF file of version 2 or 3".into());
        }
        let (tensor_count, value_count) = (reader.u64()?, reader.u64()?);
        let mut metadata = HashMap::new();
        for _ in 0..value_count {
            let name = reader.text()?;
            let kind = reader.u32()?;
            metadata.insert(name, reader.value(kind)?);
        }
        let mut tensors = HashMap::new();
        for _ in 0..tensor_count {
            let name = reader.text()?;
            let dims = (0..reader.u32()?).map(|_| reader.len()).collect::<Result<_>>()?;
            let (storage, offset) = (reader.u32()?, reader.len()?);
            tensors.insert(name, Tensor { dims, storage, offset });
        }
        let alignment = match metadata.get("general.alignment") {
            Some(&Value::Integer(alignment)) => usize::try_from(alignment)?.max(1),
            _ => 32,
        };
        let data = reader.at.next_multiple_of(alignment);
        Ok(Self { metadata, tensors, bytes, data })
    }

    fn value(&self, name: &str) -> Result<&Value> {
        self.metadata.get(name).ok_or_else(|| format!("the weights file has no {name}").into())
    }

    /// A size or an id.
    pub fn integer(&self, name: &str) -> Result<usize> {
        match self.value(name)? {
            &Value::Integer(value) => Ok(value.try_into()?),
            _ => Err(format!("{name} is not an integer").into()),
        }
    }

    /// A number.
    pub fn float(&self, name: &str) -> Result<f64> {
        match self.value(name)? {
            &Value::Float(value) => Ok(value),
            _ => Err(format!("{name} is not a float").into()),
        }
    }

    /// A list of texts.
    pub fn texts(&self, name: &str) -> Result<Vec<&str>> {
        let Value::List(values) = self.value(name)? else {
            return Err(format!("{name} is not a list").into());
        };
        values
            .iter()
            .map(|value| match value {
                Value::Text(text) => Ok(text.as_str()),
                _ => Err(format!("{name} does not list texts").into()),
            })
            .collect()
    }

    /// A vector or a matrix.
    pub fn tensor(&self, name: &str) -> Result<TensorBytes<'_>> {
        let tensor = self.tensors.get(name).ok_or_else(|| format!("the weights file has no {name}"))?;
        let (&cols, rows) = tensor.dims.split_first().ok_or_else(|| format!("{name} has no dimensions"))?;
        let bytes = self.bytes.get(self.data + tensor.offset..).ok_or("the weights file is cut off")?;
        Ok(TensorBytes { cols, rows: rows.iter().product(), storage: tensor.storage, bytes })
    }
}

/// Reads little-endian values one after the other.
struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    fn take(&mut self, len: usize) -> Result<&'a [u8]> {
        let end = self.at.checked_add(len).ok_or("a length beyond all memory")?;
        let taken = self.bytes.get(self.at..end).ok_or("the weights file is cut off")?;
        self.at = end;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N]> {
        Ok(self.take(N)?.try_into()?)
    }

    fn u32(&mut self) -> Result<u32> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    fn u64(&mut self) -> Result<u64> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    fn len(&mut self) -> Result<usize> {
        Ok(self.u64()?.try_into()?)
    }

    fn text(&mut self) -> Result<String> {
        let len = self.len()?;
        Ok(str::from_utf8(self.take(len)?)?.to_owned())
    }

    fn value(&mut self, kind: u32) -> Result<Value> {
        Ok(match kind {
            0 | 7 => Value::Integer(u8::from_le_bytes(self.array()?).into()),
            1 => Value::Integer(i8::from_le_bytes(self.array()?) as u64),
            2 => Value::Integer(u16::from_le_bytes(self.array()?).into()),
            3 => Value::Integer(i16::from_le_bytes(self.array()?) as u64),
            4 => Value::Integer(self.u32()?.into()),
            5 => Value::Integer(i32::from_le_bytes(self.array()?) as u64),
            6 => Value::Float(f32::from_le_bytes(self.array()?).into()),
            8 => Value::Text(self.text()?),
            9 => {
                let kind = self.u32()?;
                let len = self.len()?;
                Value::List((0..len).map(|_| self.value(kind)).collect::<Result<_>>()?)
            }
            10 => Value::Integer(self.u64()?),
            11 => Value::Integer(i64::from_le_bytes(self.array()?) as u64),
            12 => Value::Float(f64::from_le_bytes(self.array()?)),
            _ => return Err(format!("metadata of unknown kind {kind}").into()),
        })
    }
}
