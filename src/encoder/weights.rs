//! A checkpoint's tensors, read one by one: the whole file beside its weights as kernels hold them would be as much
//! memory again.

use std::fs::File;
use std::io::Read;
use std::os::unix::fs::FileExt;
use std::path::Path;

use candle_core::safetensors::Load;
use candle_core::{DType, Device, Result, Shape, Tensor};
use candle_nn::var_builder::SimpleBackend;
use candle_nn::{Init, VarBuilder};
use safetensors::tensor::{Metadata, TensorView};

use super::Error;

/// A file whose header has been read.
struct Checkpoint {
    file: File,
    tensors: Metadata,
    /// Where the header ends.
    begin: usize,
}

/// Longer headers are no checkpoint's.
const LONGEST_HEADER: u64 = 100 << 20;

/// The tensors of a `model.safetensors`, as f32 whatever they are in the file.
///
/// # Errors
/// If the file cannot be read, or is not as long as its header says.
pub(super) fn open(path: &Path, device: &Device) -> std::result::Result<VarBuilder<'static>, Error> {
    let read = |source| Error::Read { path: path.to_owned(), source };
    let wrong = |found: String| Error::Model {
        path: path.to_owned(),
        expected: "a safetensors file, whole".to_owned(),
        found,
    };
    let mut file = File::open(path).map_err(read)?;
    let length = file.metadata().map_err(read)?.len();
    if length < 8 {
        return Err(wrong(format!("{length} bytes")));
    }
    let mut size = [0u8; 8];
    file.read_exact(&mut size).map_err(read)?;
    let size = u64::from_le_bytes(size);
    if size > LONGEST_HEADER.min(length - 8) {
        return Err(wrong(format!("a header of {size} bytes")));
    }
    let mut header = vec![0u8; size as usize];
    file.read_exact(&mut header).map_err(read)?;
    let tensors: Metadata = serde_json::from_slice(&header).map_err(|error| wrong(error.to_string()))?;
    let begin = 8 + header.len();
    let end = begin + tensors.data_len();
    if end as u64 != length {
        return Err(wrong(format!("{length} bytes where its header tells of {end}")));
    }
    Ok(VarBuilder::from_backend(Box::new(Checkpoint { file, tensors, begin }), DType::F32, device.clone()))
}

impl SimpleBackend for Checkpoint {
    fn get(&self, shape: Shape, name: &str, _: Init, dtype: DType, device: &Device) -> Result<Tensor> {
        let tensor = self.get_unchecked(name, dtype, device)?;
        if *tensor.shape() == shape {
            return Ok(tensor);
        }
        let (expected, got) = (shape, tensor.shape().clone());
        Err(candle_core::Error::UnexpectedShape { msg: name.to_owned(), expected, got })
    }

    fn get_unchecked(&self, name: &str, dtype: DType, device: &Device) -> Result<Tensor> {
        let missing = || candle_core::Error::CannotFindTensor { path: name.to_owned() };
        let info = self.tensors.info(name).ok_or_else(missing)?;
        let (from, to) = info.data_offsets;
        let mut bytes = vec![0u8; to - from];
        self.file.read_exact_at(&mut bytes, (self.begin + from) as u64)?;
        TensorView::new(info.dtype, info.shape.clone(), &bytes)?.load(device)?.to_dtype(dtype)
    }

    fn contains_tensor(&self, name: &str) -> bool {
        self.tensors.info(name).is_some()
    }
}
