//! What is refused, and how.

use candle_core::{DType, Device, Error, Tensor, Var};
use gqa_candle::{Options, attention};

fn tensor(dims: [usize; 4]) -> Tensor {
    Tensor::ones(&dims, DType::F32, &Device::Cpu).unwrap()
}

/// The error of a call with 4 heads on 2 KV heads, 3 rows and 5 keys of 8, some of whose tensors are replaced.
fn refused(q: Option<Tensor>, k: Option<Tensor>, v: Option<Tensor>, options: Options) -> Error {
    let q = q.unwrap_or_else(|| tensor([2, 4, 3, 8]));
    let (k, v) = (k.unwrap_or_else(|| tensor([2, 2, 5, 8])), v.unwrap_or_else(|| tensor([2, 2, 5, 8])));
    let mut error = attention(&q, &k, &v, &options).unwrap_err();
    while let Error::WithBacktrace { inner, .. } = error {
        error = *inner;
    }
    error
}

#[test]
fn sizes_that_do_not_fit() {
    let none = Options::new;
    let error =
        refused(Some(tensor([2, 4, 3, 8]).squeeze(0).unwrap().flatten(0, 1).unwrap()), None, None, none());
    assert!(matches!(error, Error::UnexpectedNumberOfDims { expected: 4, got: 3, .. }), "{error}");
    for (k, v, operand) in [
        (Some(tensor([1, 2, 5, 8])), None, "k of gqa-attention"),
        (Some(tensor([2, 2, 5, 16])), None, "k of gqa-attention"),
        (None, Some(tensor([2, 2, 4, 8])), "v of gqa-attention"),
        (None, Some(tensor([2, 4, 5, 8])), "v of gqa-attention"),
    ] {
        let error = refused(None, k, v, none());
        assert!(matches!(&error, Error::UnexpectedShape { msg, .. } if msg == operand), "{error}");
    }
    let error = refused(None, Some(tensor([2, 3, 5, 8])), Some(tensor([2, 3, 5, 8])), none());
    assert_eq!(error.to_string(), "kv_heads: needed a divisor of q_heads = 4, had 3");
}

#[test]
fn rows_whose_elements_are_not_neighbours() {
    let transposed = tensor([2, 2, 8, 5]).transpose(2, 3).unwrap();
    let error = refused(None, Some(transposed.clone()), None, Options::new());
    assert!(matches!(error, Error::RequiresContiguous { .. }), "{error}");
    assert_eq!(error.to_string(), "gqa-attention on the last dimension only supports contiguous tensors");
    attention(
        &tensor([2, 4, 3, 8]),
        &transposed.contiguous().unwrap(),
        &tensor([2, 2, 5, 8]),
        &Options::new(),
    )
    .unwrap();
}

#[test]
fn types() {
    for dtype in [DType::F64, DType::U32, DType::U8] {
        for operand in 0..3 {
            let mut tensors = [tensor([2, 4, 3, 8]), tensor([2, 2, 5, 8]), tensor([2, 2, 5, 8])];
            tensors[operand] = tensors[operand].to_dtype(dtype).unwrap();
            let [q, k, v] = tensors;
            let error = refused(Some(q), Some(k), Some(v), Options::new());
            let expected = ["q of gqa-attention", "k of gqa-attention", "v of gqa-attention"][operand];
            assert!(
                matches!(error, Error::UnsupportedDTypeForOp(had, op) if had == dtype && op == expected),
                "{error}"
            );
        }
    }
}

#[test]
fn options() {
    let mask = tensor([1, 1, 3, 5]);
    let error = refused(None, None, None, Options::new().mask(&mask));
    assert!(matches!(error, Error::UnsupportedDTypeForOp(DType::F32, "mask of gqa-attention")), "{error}");
    let error = refused(None, None, None, Options::new().bias(&mask.to_dtype(DType::U8).unwrap()));
    assert!(matches!(error, Error::UnsupportedDTypeForOp(DType::U8, "bias of gqa-attention")), "{error}");
    let error = refused(None, None, None, Options::new().bias(&tensor([1, 1, 3, 4])));
    assert!(matches!(error, Error::BroadcastIncompatibleShapes { .. }), "{error}");

    for (options, message) in [
        (Options::new().softcap(0.0), "softcap[0]: needed a finite number > 0 with a finite inverse, had 0"),
        (Options::new().scale(f32::NAN), "scale[0]: needed a finite number, had NaN"),
        (Options::new().sinks([0.0; 3]), "sinks: needed exactly 4 numbers, had 3"),
        (Options::new().alibi([f32::INFINITY; 4]), "alibi_slopes[0]: needed a finite number, had inf"),
        (Options::new().key_lengths([5]), "key_lengths: needed exactly 2 numbers, had 1"),
        (Options::new().key_lengths([5, 6]), "key_lengths[1]: needed at most 5, had 6"),
    ] {
        let error = refused(None, None, None, options);
        assert!(matches!(error, Error::Wrapped(_)), "{error}");
        assert_eq!(error.to_string(), message);
    }
}

#[test]
fn there_is_no_gradient() {
    let q = Var::from_tensor(&tensor([2, 4, 3, 8])).unwrap();
    let (k, v) = (tensor([2, 2, 5, 8]), tensor([2, 2, 5, 8]));
    let out = attention(&q, &k, &v, &Options::new()).unwrap();
    let error = out.sum_all().unwrap().backward().unwrap_err();
    assert!(error.to_string().contains("gqa-attention"), "{error}");
}
