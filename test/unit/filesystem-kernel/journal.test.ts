import { describe, expect, test } from 'bun:test';
import { JOURNAL_PART_SIZE, Journal, NOT_RECORDED } from '../../../src/filesystem/drivers/kernel/journal.ts';
import { Opcode } from '../../../src/filesystem/drivers/kernel/protocol.ts';
import { decode, fields, readBody, requestBytes } from './request-bytes.ts';

const read = (unique: bigint) => requestBytes(Opcode.READ, { unique, body: readBody(0n, 0n, 4096) });

describe('the journal', () => {
  test('gives a successor what was not answered, and nothing else', () => {
    const memory = new Uint8Array(2 * JOURNAL_PART_SIZE);
    const before = new Journal(memory);
    const answered = before.keep(0, read(1n));
    before.keep(0, read(2n));
    before.keep(1, read(3n));
    before.clear(answered);
    before.inbox(1).set(read(4n));
    const found = new Journal(memory).leftovers().map(({ bytes }) => decode(bytes).request.uniqueLow);
    expect(found.toSorted()).toEqual([2, 3, 4]);
  });

  test('keeps what was left until it is answered, whoever dies in between', () => {
    const memory = new Uint8Array(JOURNAL_PART_SIZE);
    new Journal(memory).inbox(0).set(read(1n));
    new Journal(memory).leftovers();
    const third = new Journal(memory);
    const found = third.leftovers();
    expect(found.map(({ bytes }) => decode(bytes).request.uniqueLow)).toEqual([1]);
    for (const { record } of found) third.clear(record);
    expect(new Journal(memory).leftovers()).toEqual([]);
  });

  test('keeps of a long request enough to refuse it', () => {
    const journal = new Journal(new Uint8Array(JOURNAL_PART_SIZE));
    journal.keep(0, requestBytes(Opcode.WRITE, { unique: 9n, body: new Uint8Array(4096) }));
    const [found] = journal.leftovers();
    const { request, result } = decode(found?.bytes ?? new Uint8Array(0));
    expect({ result, opcode: request.opcode, unique: request.uniqueLow }).toEqual({
      result: 0,
      opcode: 16,
      unique: 9,
    });
  });

  test('says when it is full', () => {
    const journal = new Journal(new Uint8Array(JOURNAL_PART_SIZE));
    const request = requestBytes(Opcode.LOOKUP, { body: fields('x'.repeat(255)) });
    let kept = 0;
    while (kept < 10_000 && journal.keep(0, request) !== NOT_RECORDED) kept++;
    expect(kept).toBe(512);
    expect(journal.keep(0, request)).toBe(NOT_RECORDED);
    expect(journal.leftovers()[0]?.bytes).toEqual(request);
  });

  test('takes no damage for a request', () => {
    const memory = new Uint8Array(JOURNAL_PART_SIZE).fill(0xff);
    expect(new Journal(memory).leftovers()).toEqual([]);
  });
});
