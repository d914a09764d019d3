//! Every bad argument is refused with an error that names it, before anything is written.

use std::fmt::Debug;

use gqa::{
    Alignment, Attention, Error, KvStorage, Level, MaskStrides, Operand, Shape, Stage, Strides, View,
    ViewMut, f16, grouped_query_attention,
};

use crate::support::levels;

const SHAPE: Shape =
    Shape { batch: 2, q_heads: 6, kv_heads: 3, q_len: 4, kv_len: 5, head_dim: 7, value_dim: 8 };
const Q: usize = 2 * 6 * 4 * 7;
const K: usize = 2 * 3 * 5 * 7;
const V: usize = 2 * 3 * 5 * 8;
const OUT: usize = 2 * 6 * 4 * 8;
const LSE: usize = 2 * 6 * 4;

/// What `out` holds before a call and after a refused one.
const UNTOUCHED: f32 = 42.0;

/// Operands, each of a length and strides that a test may spoil.
struct Call {
    shape: Shape,
    lengths: [usize; 4],
    strides: [Strides; 4],
}

impl Call {
    fn good() -> Self {
        Self {
            shape: SHAPE,
            lengths: [Q, K, V, OUT],
            strides: [
                Strides::bhsd(6, 4, 7),
                Strides::bhsd(3, 5, 7),
                Strides::bhsd(3, 5, 8),
                Strides::bhsd(6, 4, 8),
            ],
        }
    }

    /// Runs with what `attach` adds, and checks that an error leaves `out` untouched.
    fn run<'a>(&self, attach: impl FnOnce(Attention<'a>) -> Attention<'a>) -> Result<(), Error> {
        let [q, k, v, mut out] = self.lengths.map(|length| vec![UNTOUCHED; length]);
        let [of_q, of_k, of_v, of_out] = self.strides;
        let mut scratch = vec![0.0; self.shape.scratch_len().min(1 << 20)];
        let call = || {
            let attention = attach(Attention::new(self.shape)?);
            let (q, k, v) = (View::new(&q, of_q), View::new(&k, of_k), View::new(&v, of_v));
            attention.bind(q, k, v, ViewMut::new(&mut out, of_out))?.run(&mut scratch)
        };
        let result = call();
        if result.is_err() {
            assert!(out.iter().all(|&x| x == UNTOUCHED), "{result:?} after writing");
        }
        result
    }

    fn plain(&self) -> Result<(), Error> {
        self.run(|attention| attention)
    }
}

#[test]
fn a_good_call_is_good() {
    assert_eq!(Call::good().plain(), Ok(()));
}

#[test]
fn shapes() {
    let error = |shape| Attention::new(shape).unwrap_err();
    assert_eq!(error(Shape { q_heads: 0, ..SHAPE }), Error::Zero { operand: Operand::QHeads });
    assert_eq!(error(Shape { kv_heads: 0, ..SHAPE }), Error::Zero { operand: Operand::KvHeads });
    assert_eq!(error(Shape { head_dim: 0, ..SHAPE }), Error::Zero { operand: Operand::HeadDim });
    assert_eq!(error(Shape { value_dim: 0, ..SHAPE }), Error::Zero { operand: Operand::ValueDim });
    for kv_heads in [4, 5, 7, 12, usize::MAX] {
        assert_eq!(error(Shape { kv_heads, ..SHAPE }), Error::HeadsNotDivisible { q_heads: 6, kv_heads });
    }
    for q_len in [usize::MAX, usize::MAX / 12 + 1, isize::MAX as usize / 12 + 1] {
        assert_eq!(error(Shape { q_len, ..SHAPE }), Error::Overflow { operand: Operand::QLen });
    }
    for kv_len in [usize::MAX, usize::MAX / 6 + 1, isize::MAX as usize / 6 + 1] {
        assert_eq!(error(Shape { kv_len, ..SHAPE }), Error::Overflow { operand: Operand::KvLen });
    }
}

#[test]
fn nothing_to_do_is_fine() {
    for shape in [Shape { batch: 0, ..SHAPE }, Shape { q_len: 0, ..SHAPE }] {
        let call = Call { shape, lengths: [0, K, V, 0], ..Call::good() };
        assert_eq!(call.plain(), Ok(()), "{shape:?}");
    }
    let call = Call { shape: Shape { batch: 0, ..SHAPE }, lengths: [0; 4], ..Call::good() };
    assert_eq!(call.plain(), Ok(()));
    let none =
        |attention: Attention<'static>| attention.query_lengths(&[]).key_lengths(&[]).prefix_lengths(&[]);
    assert_eq!(call.run(none), Ok(()));
    let strides = [Strides { batch: usize::MAX, head: usize::MAX, row: usize::MAX }; 4];
    assert_eq!(Call { strides, ..call }.plain(), Ok(()));
}

#[test]
fn no_keys_give_zeros() {
    let shape = Shape { kv_len: 0, ..SHAPE };
    for level in levels() {
        let (q, mut out, mut lse) = ([1.0f32; Q], [UNTOUCHED; OUT], [UNTOUCHED; LSE]);
        let (k, v) = (View::bhsd(&[0.0f32; 0], 3, 0, 7), View::bhsd(&[0.0f32; 0], 3, 0, 8));
        let attention = Attention::new(shape).unwrap().level(level).sinks(&[1.0; 6]);
        let job = attention.bind(View::bhsd(&q, 6, 4, 7), k, v, ViewMut::bhsd(&mut out, 6, 4, 8)).unwrap();
        let mut job = job.lse(ViewMut::bhsd(&mut lse, 6, 4, 1)).unwrap();
        job.run(&mut vec![f32::NAN; shape.scratch_len()]).unwrap();
        assert_eq!(out, [0.0; OUT], "{level}");
        assert_eq!(lse, [f32::NEG_INFINITY; LSE], "{level}");
    }
}

#[test]
fn operands_that_end_too_early() {
    for (at, operand) in
        [Operand::Query, Operand::Key, Operand::Value, Operand::Output].into_iter().enumerate()
    {
        let needed = [Q, K, V, OUT][at];
        for had in [needed - 1, 1, 0] {
            let mut call = Call::good();
            call.lengths[at] = had;
            assert_eq!(call.plain(), Err(Error::TooShort { operand, needed, had }));
        }
    }
}

#[test]
fn strides_that_leave_every_memory() {
    for (at, operand) in
        [Operand::Query, Operand::Key, Operand::Value, Operand::Output].into_iter().enumerate()
    {
        for huge in [usize::MAX, usize::MAX / 2 + 1, isize::MAX as usize] {
            for axis in 0..3 {
                let mut call = Call::good();
                let Strides { batch, head, row } = &mut call.strides[at];
                *[batch, head, row][axis] = huge;
                assert_eq!(call.plain(), Err(Error::Overflow { operand }), "{huge} on axis {axis}");
            }
        }
    }
}

#[test]
fn rows_that_overlap() {
    for (strides, needed, had) in [
        (Strides { batch: 192, head: 32, row: 7 }, 8, 7),
        (Strides { batch: 192, head: 31, row: 8 }, 32, 31),
        (Strides { batch: 191, head: 32, row: 8 }, 192, 191),
        (Strides { batch: 192, head: 32, row: 0 }, 8, 0),
        (Strides { batch: 0, head: 32, row: 8 }, 8, 0),
        (Strides { batch: 192, head: 8, row: 8 }, 48, 8),
    ] {
        let mut call = Call::good();
        call.strides[3] = strides;
        let found = call.plain();
        // Of two equal strides either may be called the wrong one.
        if strides.head == strides.row {
            assert!(
                matches!(found, Err(Error::Overlap { operand: Operand::Output, had: 8, .. })),
                "{found:?}"
            );
        } else {
            assert_eq!(found, Err(Error::Overlap { operand: Operand::Output, needed, had }));
        }
    }
}

/// Binds the good call, and gives the error of what is done with the job.
fn of_job(
    with: impl for<'a> FnOnce(gqa::Job<'a, f32, f32, f32, f32>, &'a mut [f32]) -> Result<(), Error>,
    others: usize,
) -> Error {
    let ([q, k, v], mut out) = ([Q, K, V].map(|length| vec![0.0; length]), vec![UNTOUCHED; OUT]);
    let mut others = vec![UNTOUCHED; others];
    let attention = Attention::new(SHAPE).unwrap();
    let (q, k, v) = (View::bhsd(&q, 6, 4, 7), View::bhsd(&k, 3, 5, 7), View::bhsd(&v, 3, 5, 8));
    let job = attention.bind(q, k, v, ViewMut::bhsd(&mut out, 6, 4, 8)).unwrap();
    let error = with(job, &mut others).unwrap_err();
    assert!(out.iter().chain(&others).all(|&x| x == UNTOUCHED), "{error:?} after writing");
    error
}

#[test]
fn outputs_beside_the_output() {
    let operand = Operand::Lse;
    let lse = |strides, length| of_job(|job, to| job.lse(ViewMut::new(to, strides)).map(drop), length);
    assert_eq!(lse(Strides::bhsd(6, 4, 1), LSE - 1), Error::TooShort { operand, needed: LSE, had: LSE - 1 });
    let overlapping = Strides { batch: 24, head: 3, row: 1 };
    assert_eq!(lse(overlapping, LSE), Error::Overlap { operand, needed: 4, had: 3 });
    let far = Strides { batch: usize::MAX, head: 4, row: 1 };
    assert_eq!(lse(far, LSE), Error::Overflow { operand });

    let (operand, needed) = (Operand::Scores, LSE * 5);
    let scores = |strides, length| {
        of_job(|job, to| job.inspect(Stage::Raw, ViewMut::new(to, strides)).map(drop), length)
    };
    assert_eq!(
        scores(Strides::bhsd(6, 4, 5), needed - 1),
        Error::TooShort { operand, needed, had: needed - 1 }
    );
    let overlapping = Strides { batch: 120, head: 20, row: 4 };
    assert_eq!(scores(overlapping, needed), Error::Overlap { operand, needed: 5, had: 4 });
    let far = Strides { batch: 120, head: usize::MAX, row: 5 };
    assert_eq!(scores(far, needed), Error::Overflow { operand });
}

#[test]
fn short_scratch() {
    let short = |needed: usize| Error::TooShort { operand: Operand::Scratch, needed, had: needed - 1 };
    let mut needed = 0;
    let found = of_job(
        |mut job, _| {
            needed = job.scratch_len();
            job.run(&mut vec![0.0; needed - 1])
        },
        0,
    );
    assert_eq!(found, short(needed));
    let found = of_job(|mut job, _| job.items().next().unwrap().run(&mut vec![0.0; needed - 1]), 0);
    assert_eq!(found, short(needed));
    let found = of_job(|mut job, _| job.run(&mut []), 0);
    assert_eq!(found, Error::TooShort { operand: Operand::Scratch, needed, had: 0 });
}

#[cfg(target_has_atomic = "ptr")]
#[test]
fn short_partials() {
    let shape =
        Shape { batch: 1, q_heads: 2, kv_heads: 1, q_len: 1, kv_len: 1000, head_dim: 1, value_dim: 1 };
    let (q, k, v) = ([0.0f32; 2], [0.0f32; 1000], [0.0f32; 1000]);
    // Without vectors nothing is split, nor in wasm.
    let never = cfg!(any(target_family = "wasm", feature = "single-tile"));
    let splits = |level: &Level| !never && *level != Level::SCALAR;
    for level in Level::available().filter(splits) {
        let mut out = [7.0f32; 2];
        let job = Attention::new(shape).unwrap().level(level).bind(
            View::bhsd(&q, 2, 1, 1),
            View::bhsd(&k, 1, 1000, 1),
            View::bhsd(&v, 1, 1000, 1),
            ViewMut::bhsd(&mut out, 2, 1, 1),
        );
        let job = job.unwrap();
        let needed = job.partials_len();
        let mut partials = vec![0.0; needed - 1];
        let error = job.split_kv(&mut partials).err();
        let had = needed - 1;
        assert_eq!(error, Some(Error::TooShort { operand: Operand::Partials, needed, had }), "{level}");
        assert_eq!(out, [7.0; 2]);
    }
    let endless = Shape { batch: usize::MAX, kv_len: usize::MAX, ..shape };
    let splits = Level::available().any(|level| splits(&level));
    assert_eq!(endless.partials_len(), if splits { usize::MAX } else { 0 });
}

#[test]
fn calls_with_fewer_rows_need_no_more_scratch() {
    for (heads, dims) in [([9, 3], [64, 64]), ([1, 1], [1, 1]), ([8, 1], [128, 80]), ([71, 1], [3, 17])] {
        let [q_heads, kv_heads] = heads;
        let [head_dim, value_dim] = dims;
        let shape = Shape { batch: 1, q_heads, kv_heads, q_len: 0, kv_len: 9, head_dim, value_dim };
        for (level, storage) in Level::available()
            .flat_map(|level| [KvStorage::F32, KvStorage::Narrow].map(|storage| (level, storage)))
        {
            let lens = (0..300).map(|q_len| Shape { q_len, ..shape }.scratch_len_at(level, storage));
            assert!(lens.is_sorted(), "{heads:?} {dims:?} {level} {storage:?}");
        }
        assert!((0..300).map(|q_len| Shape { q_len, ..shape }.scratch_len()).is_sorted());
        let others = Shape { q_len: 7, kv_len: 1 << 20, batch: 5, ..shape };
        assert_eq!(others.scratch_len(), Shape { q_len: 7, ..shape }.scratch_len());
    }
}

#[test]
fn counts_and_lengths() {
    let call = Call::good();
    for count in [0, 5, 7] {
        let numbers = vec![0.5; count];
        let wrong = |operand| Err(Error::WrongCount { operand, needed: 6, had: count });
        assert_eq!(call.run(|attention| attention.alibi(&numbers[..])), wrong(Operand::AlibiSlopes));
        assert_eq!(call.run(|attention| attention.sinks(&numbers[..])), wrong(Operand::Sinks));
    }
    for count in [0, 1, 3] {
        let lengths = vec![1; count];
        let wrong = |operand| Err(Error::WrongCount { operand, needed: 2, had: count });
        assert_eq!(call.run(|attention| attention.query_lengths(&lengths[..])), wrong(Operand::QueryLengths));
        assert_eq!(call.run(|attention| attention.key_lengths(&lengths[..])), wrong(Operand::KeyLengths));
        assert_eq!(
            call.run(|attention| attention.prefix_lengths(&lengths[..])),
            wrong(Operand::PrefixLengths)
        );
    }
    for had in [6, usize::MAX] {
        let lengths = [5, had];
        let wrong = |operand| Err(Error::TooLong { operand, index: 1, needed: 5, had });
        assert_eq!(call.run(|attention| attention.key_lengths(&lengths[..])), wrong(Operand::KeyLengths));
        assert_eq!(
            call.run(|attention| attention.prefix_lengths(&lengths[..])),
            wrong(Operand::PrefixLengths)
        );
    }
    for had in [5, usize::MAX] {
        let wrong = Err(Error::TooLong { operand: Operand::QueryLengths, index: 0, needed: 4, had });
        let lengths = [had, 4];
        assert_eq!(call.run(|attention| attention.query_lengths(&lengths)), wrong);
    }
}

/// Asserts a domain error; NaN is not equal to itself.
fn outside(result: Result<(), Error>, operand: Operand, index: usize, had: f32) {
    match result {
        Err(Error::Domain { operand: o, index: i, had: h, .. }) => {
            assert_eq!((o, i, h.to_bits()), (operand, index, had.to_bits()));
        }
        other => panic!("{operand} = {had}: {other:?}"),
    }
}

#[test]
fn numbers_outside_their_domains() {
    let call = Call::good();
    for wrong in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        outside(call.run(|attention| attention.scale(wrong)), Operand::Scale, 0, wrong);
        let numbers = [0.0, 0.0, wrong, 0.0, 0.0, 0.0];
        outside(call.run(|attention| attention.alibi(&numbers[..])), Operand::AlibiSlopes, 2, wrong);
        if wrong != f32::NEG_INFINITY {
            outside(call.run(|attention| attention.sinks(&numbers[..])), Operand::Sinks, 2, wrong);
        }
    }
    for wrong in [0.0, -0.0, -1.0, f32::NAN, f32::INFINITY, f32::NEG_INFINITY, f32::from_bits(1)] {
        outside(call.run(|attention| attention.softcap(wrong)), Operand::Softcap, 0, wrong);
    }
    for fine in [0.0, -2.0, f32::MAX] {
        assert_eq!(call.run(|attention| attention.scale(fine)), Ok(()));
    }
    assert_eq!(call.run(|attention| attention.sinks(&[f32::NEG_INFINITY; 6])), Ok(()));
}

#[test]
fn biases_and_masks_that_end_too_early() {
    let (call, needed) = (Call::good(), 2 * 6 * 4 * 5);
    let bias = |had| Err(Error::TooShort { operand: Operand::Bias, needed, had });
    let mask = |had| Err(Error::TooShort { operand: Operand::Mask, needed, had });
    let full = MaskStrides::full(6, 4, 5);
    let (numbers, halves) = (vec![0.0f32; needed], vec![f16::ZERO; needed]);
    let (truths, bytes) = (vec![true; needed], vec![1u8; needed]);
    let had = needed - 1;
    assert_eq!(call.run(|attention| attention.bias(&numbers[..had], full)), bias(had));
    assert_eq!(call.run(|attention| attention.bias(&halves[..had], full)), bias(had));
    assert_eq!(call.run(|attention| attention.mask(&truths[..had], full)), mask(had));
    assert_eq!(call.run(|attention| attention.mask(&bytes[..had], full)), mask(had));
    assert_eq!(call.run(|attention| attention.mask(&bytes[..], full)), Ok(()));
    assert_eq!(call.run(|attention| attention.bias(&numbers[..], full).mask(&truths[..], full)), Ok(()));
    let far = MaskStrides { row: usize::MAX, ..full };
    assert_eq!(
        call.run(|attention| attention.bias(&numbers[..], far)),
        Err(Error::Overflow { operand: Operand::Bias })
    );
    assert_eq!(
        call.run(|attention| attention.mask(&truths[..], far)),
        Err(Error::Overflow { operand: Operand::Mask })
    );
    let one = MaskStrides { batch: 0, head: 0, row: 0, key: 0 };
    assert_eq!(
        call.run(|attention| attention.mask(&[0u8; 0][..], one)),
        Err(Error::TooShort { operand: Operand::Mask, needed: 1, had: 0 })
    );
    assert_eq!(call.run(|attention| attention.mask(&[true][..], one)), Ok(()));
}

#[test]
fn limits_of_any_size_are_fine() {
    let call = Call::good();
    for offset in [i64::MIN, -1, 0, 1, i64::MAX] {
        for reach in [0, 1, usize::MAX] {
            let limits = |attention: Attention<'static>| {
                attention
                    .align(Alignment::Offset(offset))
                    .left_window(reach)
                    .right_window(reach)
                    .alibi(&[1.0; 6])
            };
            assert_eq!(call.run(limits), Ok(()), "{offset} {reach}");
        }
    }
}

#[test]
fn the_short_door() {
    let (q, k, v, mut out) = (vec![0.0f32; Q], vec![0.0f32; K], vec![0.0f32; V - 1], vec![UNTOUCHED; OUT]);
    let mut scratch = vec![0.0; SHAPE.scratch_len()];
    let found = grouped_query_attention(&q, &k, &v, &mut out, SHAPE, &mut scratch);
    assert_eq!(found, Err(Error::TooShort { operand: Operand::Value, needed: V, had: V - 1 }));
    assert!(out.iter().all(|&x| x == UNTOUCHED));
}

#[test]
fn texts_name_the_operand_and_both_numbers() {
    for (error, text) in [
        (Error::Zero { operand: Operand::HeadDim }, "head_dim: needed at least 1, had 0"),
        (
            Error::HeadsNotDivisible { q_heads: 6, kv_heads: 4 },
            "kv_heads: needed a divisor of q_heads = 6, had 4",
        ),
        (
            Error::Overflow { operand: Operand::Key },
            "k: needed an extent of at most isize::MAX elements, had more",
        ),
        (
            Error::TooShort { operand: Operand::Scratch, needed: 9, had: 8 },
            "scratch: needed 9 elements, had 8",
        ),
        (
            Error::WrongCount { operand: Operand::Sinks, needed: 6, had: 5 },
            "sinks: needed exactly 6 numbers, had 5",
        ),
        (
            Error::TooLong { operand: Operand::KeyLengths, index: 1, needed: 5, had: 6 },
            "key_lengths[1]: needed at most 5, had 6",
        ),
        (
            Error::Overlap { operand: Operand::Output, needed: 8, had: 7 },
            "out: rows overlap, needed a stride of at least 8, had 7",
        ),
        (
            Error::Domain { operand: Operand::Scale, index: 0, needed: "a finite number", had: f32::NAN },
            "scale[0]: needed a finite number, had NaN",
        ),
    ] {
        assert_eq!(error.to_string(), text);
    }
}

#[test]
fn an_error_is_a_good_citizen() {
    fn is<T: std::error::Error + Send + Sync + Copy + Debug + 'static>() {}
    is::<Error>();
}
