import { DISTANCE_TABLE_BITS, END_OF_BLOCK, LENGTH_TABLE_BITS, LINK } from './huffman-tables.ts';
import {
  assembleModule,
  block,
  branch,
  branchIf,
  type Code,
  get,
  i32,
  i64,
  loop,
  sequence,
  set,
  when,
} from './wasm-assembler.ts';
import { WINDOW_BYTES } from './window.ts';

/** Where things stand in the memory that the loop shares with its caller. */
export const STATE_AT = 0;
export const LENGTH_TABLE_AT = 64;
export const DISTANCE_TABLE_AT = 9728;
/** One byte for each of the 32 KiB before `mark`: whether a match has referred to it. */
export const REFERENCES_AT = 16384;
export const INPUT_AT = REFERENCES_AT + WINDOW_BYTES;

/** Makes a negative distance from the mark a positive address. */
const MARK_BIAS = WINDOW_BYTES;

/** Why the loop ended. */
export const LoopStop = { endOfBlock: 0, output: 1, input: 2, broken: 3 } as const;

/** The most bytes that one round writes beyond `outputLimit`: a match, or three literals; copies go by eight bytes. */
export const ROUND_BYTES = 258 + 8;
/** Bytes of input that a round may look at, beyond the position that `inputLimit` allows. */
export const LOOK_AHEAD_BYTES = 16;

// Parameters: positions of the next bit (in the input) and the next byte to be written (in the memory), up to
// where rounds may begin; the first byte of the memory that matches may refer to; and the one before which they
// are to be noted.
const [bit, inputLimit, out, outputLimit, history, mark] = [0, 1, 2, 3, 4, 5];
const [entry, other, used, length, distance, source, end, status, noted] = [6, 7, 8, 9, 10, 11, 12, 13, 14];
const [bits, rest, pattern] = [15, 16, 17];

const number = i32.const;
const low = (value: Code): Code => i32.wrap(value);
/** `count` low bits of a 64-bit value. */
const lowBits = (value: Code, count: Code): Code =>
  i32.and(low(value), i32.sub(i32.shiftLeft(number(1), count), number(1)));
const codeBits = (from: number): Code => i32.and(get(from), number(31));
const extraBits = (from: number): Code => i32.and(i32.shiftRightUnsigned(get(from), number(8)), number(15));
const base = (from: number): Code => i32.shiftRightUnsigned(get(from), number(16));
const shifted = (value: number, by: Code): Code => i64.shiftRightUnsigned(get(value), i64.extendUnsigned(by));
const advance = (local: number, by: Code): Code => set(local, i32.add(get(local), by));
const stop = (reason: number): Code => sequence(set(status, number(reason)), branch('done'));

/** At least 57 bits of the input from the current position on. */
const refill = set(
  bits,
  i64.shiftRightUnsigned(
    i64.load(INPUT_AT, i32.shiftRightUnsigned(get(bit), number(3))),
    i64.extendUnsigned(i32.and(get(bit), number(7))),
  ),
);
const lookUp = (into: number, table: number, index: Code): Code =>
  set(into, i32.load(table, i32.shiftLeft(index, number(2))));
const nextSymbol = lookUp(entry, LENGTH_TABLE_AT, lowBits(get(bits), number(LENGTH_TABLE_BITS)));
const isLiteral = i32.lessSigned(get(entry), number(0));
const isLink = (from: number): Code => i32.and(get(from), number(LINK));
const writeLiteral = sequence(
  i32.store8(0, get(out), i32.shiftRightUnsigned(get(entry), number(8))),
  advance(out, number(1)),
  advance(bit, codeBits(entry)),
);
const dropLiteral = set(bits, shifted(bits, codeBits(entry)));

/** Three literals in a row take at most 33 of the 57 bits. */
const literals = when(
  isLiteral,
  writeLiteral,
  dropLiteral,
  nextSymbol,
  when(isLiteral, writeLiteral, dropLiteral, nextSymbol, when(isLiteral, writeLiteral, branch('round'))),
  refill,
);

const longCode = when(
  isLink(entry),
  lookUp(
    entry,
    LENGTH_TABLE_AT,
    i32.add(base(entry), lowBits(shifted(bits, number(LENGTH_TABLE_BITS)), codeBits(entry))),
  ),
  when(isLiteral, writeLiteral, branch('round')),
);

/** A length and a distance take at most 48 of the 57 bits. */
const match = sequence(
  set(used, codeBits(entry)),
  set(length, i32.add(base(entry), lowBits(shifted(bits, get(used)), extraBits(entry)))),
  advance(used, extraBits(entry)),
  set(rest, shifted(bits, get(used))),
  lookUp(other, DISTANCE_TABLE_AT, lowBits(get(rest), number(DISTANCE_TABLE_BITS))),
  when(
    isLink(other),
    lookUp(
      other,
      DISTANCE_TABLE_AT,
      i32.add(base(other), lowBits(shifted(rest, number(DISTANCE_TABLE_BITS)), codeBits(other))),
    ),
  ),
  when(i32.equalsZero(get(other)), stop(LoopStop.broken)),
  set(distance, i32.add(base(other), lowBits(shifted(rest, codeBits(other)), extraBits(other)))),
  advance(bit, i32.add(get(used), i32.add(codeBits(other), extraBits(other)))),
  set(source, i32.sub(get(out), get(distance))),
  when(i32.lessSigned(get(source), get(history)), stop(LoopStop.broken)),
  set(end, i32.add(get(out), get(length))),
);

/** Notes which bytes before the mark a match refers to: what a window need not hold is not kept. */
const note = when(
  i32.lessSigned(get(source), get(mark)),
  set(noted, get(source)),
  loop(
    'note',
    i32.store8(
      REFERENCES_AT + WINDOW_BYTES - MARK_BIAS,
      i32.add(i32.sub(get(noted), get(mark)), number(MARK_BIAS)),
      number(1),
    ),
    advance(noted, number(1)),
    branchIf(
      'note',
      i32.and(
        i32.lessSigned(get(noted), get(mark)),
        i32.lessSigned(get(noted), i32.add(get(source), get(length))),
      ),
    ),
  ),
);

const copyEight = (step: Code): Code =>
  sequence(i64.store(0, get(out), i64.load(0, get(source))), advance(out, step), advance(source, step));

/** Eight bytes at a time; what is written too much is written over. */
const copy = block(
  'copied',
  when(
    i32.greaterOrEqualUnsigned(get(distance), number(8)),
    loop('far', copyEight(number(8)), branchIf('far', i32.lessUnsigned(get(out), get(end)))),
    branch('copied'),
  ),
  when(
    i32.equals(get(distance), number(1)),
    set(pattern, i64.mul(i64.load8Unsigned(0, get(source)), i64.const(0x0101_0101_0101_0101n))),
    loop(
      'run',
      i64.store(0, get(out), get(pattern)),
      advance(out, number(8)),
      branchIf('run', i32.lessUnsigned(get(out), get(end))),
    ),
    branch('copied'),
  ),
  // Of the eight bytes only `distance` are right; the next step writes over the rest.
  loop('near', copyEight(get(distance)), branchIf('near', i32.lessUnsigned(get(out), get(end)))),
);

const body = sequence(
  block(
    'done',
    loop(
      'round',
      when(i32.greaterUnsigned(get(bit), get(inputLimit)), stop(LoopStop.input)),
      when(i32.greaterUnsigned(get(out), get(outputLimit)), stop(LoopStop.output)),
      refill,
      nextSymbol,
      literals,
      longCode,
      when(
        i32.and(get(entry), number(END_OF_BLOCK)),
        advance(bit, codeBits(entry)),
        stop(LoopStop.endOfBlock),
      ),
      when(i32.equalsZero(get(entry)), stop(LoopStop.broken)),
      match,
      note,
      copy,
      set(out, get(end)),
      branch('round'),
    ),
  ),
  i32.store(STATE_AT, number(0), get(bit)),
  i32.store(STATE_AT + 4, number(0), get(out)),
  get(status),
);

let compiled: WebAssembly.Module | undefined;

export type SymbolLoop = (
  bit: number,
  inputLimit: number,
  out: number,
  outputLimit: number,
  history: number,
  mark: number,
) => number;

/**
 * The inner loop of inflate: decodes symbols of one block by the tables in `memory`, and writes what they stand
 * for. It stops between two symbols only. The positions where it stopped stand at `STATE_AT`.
 *
 * It is WebAssembly because deflate wants 64-bit shifts, which JavaScript does not have; and assembled here, so
 * that no build needs a compiler for it (docs/decisions/0009-inflate-in-webassembly.md).
 */
export function symbolLoop(memory: WebAssembly.Memory): SymbolLoop {
  // Not before it is needed: processes that inflate nothing need not wait for it.
  compiled ??= new WebAssembly.Module(assembleModule({ parameters: 6, locals32: 9, locals64: 3, body }));
  const { run } = new WebAssembly.Instance(compiled, { host: { memory } }).exports;
  if (typeof run !== 'function') throw new Error('the symbol loop has no entry');
  return (...positions) => Number(run(...positions));
}
