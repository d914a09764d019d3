//! One file: what was asked of an engine, and what it answered.

use std::collections::BTreeMap;

use safetensors::SafeTensors;

use super::Reason;
use super::tensor::Tensor;

/// Attributes and inputs are taken out as an operator reads them: what is left over was not understood.
#[derive(Debug)]
pub(crate) struct Case {
    pub(crate) name: String,
    pub(crate) suite: String,
    pub(crate) rtol: f32,
    pub(crate) atol: f32,
    /// Whether the present cache is the past cache, updated in place.
    pub(crate) shares_buffer: bool,
    pub(crate) outputs: BTreeMap<String, Tensor>,
    attributes: BTreeMap<String, String>,
    inputs: BTreeMap<String, Tensor>,
}

impl Case {
    pub(crate) fn read(bytes: &[u8]) -> Result<Self, Reason> {
        let (_, header) = SafeTensors::read_metadata(bytes).map_err(|e| e.to_string())?;
        let metadata = header.metadata().clone().ok_or("no metadata")?;
        let word = |key: &str| metadata.get(key).cloned().ok_or_else(|| format!("no {key} in the metadata"));
        let tolerance = |key: &str| word(key)?.parse().map_err(|_| format!("{key} is not a number"));
        let mut case = Self {
            name: word("case")?,
            suite: word("suite")?,
            rtol: tolerance("rtol")?,
            atol: tolerance("atol")?,
            shares_buffer: metadata.get("past_present_share_buffer").is_some_and(|flag| flag == "1"),
            outputs: BTreeMap::new(),
            attributes: BTreeMap::new(),
            inputs: BTreeMap::new(),
        };
        for (key, value) in &metadata {
            if let Some(name) = key.strip_prefix("attr.") {
                case.attributes.insert(name.into(), value.clone());
            }
        }
        for (key, view) in SafeTensors::deserialize(bytes).map_err(|e| e.to_string())?.iter() {
            let tensor = Tensor::read(&view).map_err(|reason| format!("{key}: {reason}"))?;
            match key.split_once('.') {
                Some(("in", name)) => case.inputs.insert(name.into(), tensor),
                Some(("out", name)) => case.outputs.insert(name.into(), tensor),
                _ => return Err(format!("tensor {key} is neither in.… nor out.…")),
            };
        }
        Ok(case)
    }

    /// Takes an attribute that is a number (or a truth value, as 0 or 1).
    pub(crate) fn number(&mut self, name: &str) -> Result<Option<f32>, Reason> {
        let Some(text) = self.attributes.remove(name) else { return Ok(None) };
        let number = match text.as_str() {
            "True" | "true" => Ok(1.0),
            "False" | "false" => Ok(0.0),
            text => text.parse().map_err(|_| format!("attribute {name}: needed a number, had {text}")),
        };
        number.map(Some)
    }

    /// Takes an attribute that is an integer.
    pub(crate) fn integer(&mut self, name: &str) -> Result<Option<i64>, Reason> {
        match self.number(name)? {
            Some(x) if x.fract() != 0.0 => Err(format!("attribute {name}: needed an integer, had {x}")),
            x => Ok(x.map(|x| x as i64)),
        }
    }

    /// Takes an attribute that is 0 or 1, by default 0.
    pub(crate) fn flag(&mut self, name: &str) -> Result<bool, Reason> {
        Ok(self.integer(name)?.unwrap_or(0) != 0)
    }

    /// Takes an attribute that counts something, such as heads.
    pub(crate) fn count(&mut self, name: &str) -> Result<Option<usize>, Reason> {
        let Some(n) = self.integer(name)? else { return Ok(None) };
        let count = usize::try_from(n).ok().filter(|&n| n > 0);
        count.map(Some).ok_or_else(|| format!("attribute {name}: needed at least 1, had {n}"))
    }

    /// Takes a window: negative means none.
    pub(crate) fn window(&mut self, name: &str) -> Result<Option<usize>, Reason> {
        Ok(self.integer(name)?.and_then(|n| usize::try_from(n).ok()))
    }

    /// Takes a softcap: 0 means none.
    pub(crate) fn softcap(&mut self) -> Result<Option<f32>, Reason> {
        Ok(self.number("softcap")?.filter(|&cap| cap > 0.0))
    }

    /// Takes an input that may be missing.
    pub(crate) fn input(&mut self, name: &str) -> Option<Tensor> {
        self.inputs.remove(name)
    }

    /// Takes an input that must be there.
    pub(crate) fn required(&mut self, name: &str) -> Result<Tensor, Reason> {
        self.input(name).ok_or_else(|| format!("no input {name}"))
    }

    /// That an operator has read everything.
    pub(crate) fn is_understood(&self) -> Result<(), Reason> {
        if let Some((name, value)) = self.attributes.first_key_value() {
            return Err(format!("attribute {name} = {value} is not known"));
        }
        match self.inputs.first_key_value() {
            Some((name, _)) => Err(format!("input {name} is not known")),
            None => Ok(()),
        }
    }
}
