//! The K/V cache: allocated once, written a token at a time, read in place.

use gqa::{Element, View};

use crate::model::Config;
use crate::rope::Rope;

/// Room for the keys and values of so many tokens. When it is full, the `sinks` first tokens stay and the rest is a
/// ring in which each token replaces the oldest: StreamingLLM (Xiao et al., arXiv 2309.17453).
///
/// Keys lie rotated by the position of their token. In a ring the positions that count are those within the cache: the
/// sinks at 0, 1, …, the oldest token of the ring behind them. Rotary scores depend on distances only, so instead of
/// rotating the query and the whole ring back by the number of dropped tokens, the sinks alone are rotated on by it.
#[derive(Clone, Copy, Debug)]
pub struct Room {
    /// Tokens that fit.
    pub slots: usize,
    /// Tokens from the start that stay, fewer than `slots`.
    pub sinks: usize,
}

impl Room {
    /// Room for the whole sequence.
    pub fn whole(slots: usize) -> Self {
        Self { slots, sinks: 0 }
    }

    /// The slot of the token at `position`.
    fn slot(self, position: usize) -> usize {
        let Self { slots, sinks } = self;
        if position < slots { position } else { sinks + (position - sinks) % (slots - sinks) }
    }
}

/// Keys and values of all layers: `[layer][kv_head][slot][head_dim]` each.
pub struct Cache<T> {
    room: Room,
    kv_heads: usize,
    head_dim: usize,
    k: Vec<T>,
    v: Vec<T>,
    /// The sinks' keys as they were appended, `[layer][sink][kv_head][head_dim]`.
    sink_keys: Vec<f32>,
    rope: Rope,
}

impl<T: Element> Cache<T> {
    /// Allocates all that will be needed.
    pub fn new(config: &Config, room: Room) -> Self {
        let &Config { layers, kv_heads, head_dim, .. } = config;
        let numbers = layers * kv_heads * head_dim;
        Self {
            room,
            kv_heads,
            head_dim,
            k: vec![T::from_f32(0.0); numbers * room.slots],
            v: vec![T::from_f32(0.0); numbers * room.slots],
            sink_keys: vec![0.0; numbers * room.sinks],
            rope: Rope::new(config),
        }
    }

    /// Bytes of keys and values.
    pub fn bytes(&self) -> usize {
        size_of_val(&*self.k) + size_of_val(&*self.v) + size_of_val(&*self.sink_keys)
    }

    /// How many tokens from `position` on may be written before they attend: those that are written over none, or one.
    pub fn at_once(&self, position: usize) -> usize {
        self.room.slots.saturating_sub(position).max(1)
    }

    /// How many tokens are here once the one at `position` is.
    pub fn len(&self, position: usize) -> usize {
        self.room.slots.min(position + 1)
    }

    /// Writes the rotated keys and the values of tokens `position..`, `[token][kv_head][head_dim]` each.
    pub fn append(&mut self, layer: usize, position: usize, k: &[f32], v: &[f32]) {
        let width = self.kv_heads * self.head_dim;
        for (position, (k, v)) in (position..).zip(k.chunks(width).zip(v.chunks(width))) {
            let slot = self.room.slot(position);
            self.write_keys(layer, slot, k);
            let at = self.at(layer, slot);
            write(&mut self.v[at..], self.room.slots * self.head_dim, v.chunks(self.head_dim));
            if position < self.room.sinks {
                let sink = (layer * self.room.sinks + position) * width;
                self.sink_keys[sink..][..width].copy_from_slice(k);
            }
            if position >= self.room.slots {
                self.move_sinks(layer, position + 1 - self.room.slots);
            }
        }
    }

    /// Rotates the sinks as if they stood `dropped` positions further on.
    fn move_sinks(&mut self, layer: usize, dropped: usize) {
        let width = self.kv_heads * self.head_dim;
        let turn = self.rope.turns(dropped, 1);
        for sink in 0..self.room.sinks {
            let mut keys = self.sink_keys[(layer * self.room.sinks + sink) * width..][..width].to_vec();
            turn.apply(&mut keys);
            self.write_keys(layer, sink, &keys);
        }
    }

    fn write_keys(&mut self, layer: usize, slot: usize, keys: &[f32]) {
        let at = self.at(layer, slot);
        write(&mut self.k[at..], self.room.slots * self.head_dim, keys.chunks(self.head_dim));
    }

    /// The first number of a slot in a layer's first head.
    fn at(&self, layer: usize, slot: usize) -> usize {
        (layer * self.kv_heads * self.room.slots + slot) * self.head_dim
    }

    /// A layer's keys and values, for calls with as many rows as there are tokens.
    pub fn views(&self, layer: usize) -> (View<'_, T>, View<'_, T>) {
        let layer = self.at(layer, 0)..self.at(layer + 1, 0);
        // Of the slots the call's `kv_len` first ones are read.
        let view = |numbers| View::bhsd(numbers, self.kv_heads, self.room.slots, self.head_dim);
        (view(&self.k[layer.clone()]), view(&self.v[layer]))
    }

    /// A key and a value.
    pub fn rows(&self, layer: usize, kv_head: usize, slot: usize) -> (&[T], &[T]) {
        let at = self.at(layer, slot) + kv_head * self.room.slots * self.head_dim;
        (&self.k[at..][..self.head_dim], &self.v[at..][..self.head_dim])
    }
}

/// Writes heads that lie `stride` apart.
fn write<'a, T: Element>(to: &mut [T], stride: usize, heads: impl Iterator<Item = &'a [f32]>) {
    for (to, head) in to.chunks_mut(stride).zip(heads) {
        for (to, &x) in to.iter_mut().zip(head) {
            *to = T::from_f32(x);
        }
    }
}
