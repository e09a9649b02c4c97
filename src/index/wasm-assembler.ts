/**
 * Just enough of an assembler to write one WebAssembly function in TypeScript. Code is a tree of nodes; branch
 * targets are names, which become relative depths when the tree is encoded.
 * @see https://webassembly.github.io/spec/core/binary/
 */
export type Code = (labels: readonly string[]) => number[];

const VOID = 0x40;
const I32 = 0x7f;
const I64 = 0x7e;

function unsignedLeb(value: number): number[] {
  const bytes: number[] = [];
  for (let rest = value; ; rest = Math.floor(rest / 128)) {
    const low = rest % 128;
    if (rest < 128) return [...bytes, low];
    bytes.push(low | 0x80);
  }
}

function signedLeb(value: bigint): number[] {
  const bytes: number[] = [];
  for (let rest = value; ; ) {
    const low = Number(rest & 0x7fn);
    rest >>= 7n;
    const done = (rest === 0n && (low & 0x40) === 0) || (rest === -1n && (low & 0x40) !== 0);
    if (done) return [...bytes, low];
    bytes.push(low | 0x80);
  }
}

const operation =
  (opcode: number) =>
  (...operands: Code[]): Code =>
  (labels) => [...operands.flatMap((operand) => operand(labels)), opcode];

const access =
  (opcode: number) =>
  (offset: number, ...operands: Code[]): Code =>
  (labels) => [...operands.flatMap((operand) => operand(labels)), opcode, 0, ...unsignedLeb(offset)];

export const sequence =
  (...codes: Code[]): Code =>
  (labels) =>
    codes.flatMap((code) => code(labels));

export const get =
  (local: number): Code =>
  () => [0x20, local];
export const set =
  (local: number, value: Code): Code =>
  (labels) => [...value(labels), 0x21, local];

/** `i32` and `i64` operations are named as in the specification; loads and stores take a constant offset first. */
export const i32 = {
  const:
    (value: number): Code =>
    () => [0x41, ...signedLeb(BigInt(value))],
  equalsZero: operation(0x45),
  equals: operation(0x46),
  lessSigned: operation(0x48),
  lessUnsigned: operation(0x49),
  greaterUnsigned: operation(0x4b),
  greaterOrEqualUnsigned: operation(0x4f),
  add: operation(0x6a),
  sub: operation(0x6b),
  and: operation(0x71),
  shiftLeft: operation(0x74),
  shiftRightUnsigned: operation(0x76),
  wrap: operation(0xa7),
  load: access(0x28),
  store: access(0x36),
  store8: access(0x3a),
};
export const i64 = {
  const:
    (value: bigint): Code =>
    () => [0x42, ...signedLeb(value)],
  mul: operation(0x7e),
  shiftRightUnsigned: operation(0x88),
  extendUnsigned: operation(0xad),
  load: access(0x29),
  load8Unsigned: access(0x31),
  store: access(0x37),
};

export const block =
  (label: string, ...body: Code[]): Code =>
  (labels) => [0x02, VOID, ...sequence(...body)([label, ...labels]), 0x0b];
/** Branching to a loop's label goes on with its beginning. */
export const loop =
  (label: string, ...body: Code[]): Code =>
  (labels) => [0x03, VOID, ...sequence(...body)([label, ...labels]), 0x0b];
export const when =
  (condition: Code, ...body: Code[]): Code =>
  (labels) => [...condition(labels), 0x04, VOID, ...sequence(...body)(['', ...labels]), 0x0b];
export const branch =
  (label: string): Code =>
  (labels) => [0x0c, depthOf(label, labels)];
export const branchIf =
  (label: string, condition: Code): Code =>
  (labels) => [...condition(labels), 0x0d, depthOf(label, labels)];

function depthOf(label: string, labels: readonly string[]): number {
  const depth = labels.indexOf(label);
  if (depth === -1) throw new Error(`no block is called '${label}'`);
  return depth;
}

export interface FunctionSpec {
  /** i32 parameters, which are the first locals; it returns an i32. */
  readonly parameters: number;
  /** More locals of 32 and then of 64 bits. */
  readonly locals32: number;
  readonly locals64: number;
  readonly body: Code;
}

const section = (id: number, content: number[]): number[] => [id, ...unsignedLeb(content.length), ...content];
const named = (name: string): number[] => [name.length, ...Buffer.from(name, 'latin1')];

/** A module with one function, exported as `run`, over an imported memory `host.memory`. */
export function assembleModule({
  parameters,
  locals32,
  locals64,
  body,
}: FunctionSpec): Uint8Array<ArrayBuffer> {
  const code = [2, ...unsignedLeb(locals32), I32, ...unsignedLeb(locals64), I64, ...body([]), 0x0b];
  return new Uint8Array([
    ...[0, 0x61, 0x73, 0x6d, 1, 0, 0, 0],
    ...section(1, [1, 0x60, parameters, ...new Array<number>(parameters).fill(I32), 1, I32]),
    ...section(2, [1, ...named('host'), ...named('memory'), 0x02, 0, 1]),
    ...section(3, [1, 0]),
    ...section(7, [1, ...named('run'), 0, 0]),
    ...section(10, [1, ...unsignedLeb(code.length), ...code]),
  ]);
}
