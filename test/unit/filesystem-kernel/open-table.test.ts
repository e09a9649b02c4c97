import { describe, expect, test } from 'bun:test';
import { OpenTable, UNTRACKED } from '../../../src/filesystem/drivers/kernel/open-table.ts';

const memory = (slots: number) => new Uint8Array(OpenTable.sizeFor(slots));

describe('the open table', () => {
  test('counts opens and gives the backing id back with the last close', () => {
    const table = new OpenTable(memory(4));
    const slot = table.take(100, 7);
    table.opened(slot, 1, 0);
    table.opened(slot, 2, 0);
    expect(table.find(100)).toBe(slot);
    expect(table.released(slot, 3, 0)).toBe(0);
    expect(table.released(slot, 4, 0)).toBe(7);
    expect(table.find(100)).toBe(UNTRACKED);
  });

  test('counts a repeated request once', () => {
    const table = new OpenTable(memory(4));
    const slot = table.take(100, 7);
    table.opened(slot, 1, 0);
    table.opened(slot, 1, 0x8000_0000);
    expect(table.opens(slot)).toBe(1);
    table.opened(slot, 2, 0);
    table.released(slot, 3, 0);
    expect(table.released(slot, 3, 0x8000_0000)).toBe(0);
    expect(table.opens(slot)).toBe(1);
  });

  test('counts repeated requests once also when others were counted since', () => {
    const table = new OpenTable(memory(4));
    const slot = table.take(100, 0);
    table.opened(slot, 1, 0);
    table.opened(slot, 2, 0);
    // A close whose answer the kernel does not take, because it was asked to repeat it meanwhile; then another open.
    table.released(slot, 3, 0);
    table.opened(slot, 4, 0);
    expect(table.released(slot, 3, 0x8000_0000)).toBe(0);
    table.opened(slot, 4, 0x8000_0000);
    expect(table.opens(slot)).toBe(2);
    expect(table.find(100)).toBe(slot);
  });

  test('is found again by a successor', () => {
    const bytes = memory(4);
    const before = new OpenTable(bytes);
    before.session = { minor: 45, flags: -5, flags2: 0x1a0 };
    const a = before.take(100, 7);
    before.opened(a, 1, 0);
    const b = before.take(200, 0);
    before.opened(b, 2, 0);
    before.released(a, 3, 0);
    const after = new OpenTable(bytes);
    expect(after.session).toEqual({ minor: 45, flags: -5, flags2: 0x1a0 });
    expect(after.find(200)).toBe(b);
    expect(after.backing(b)).toBe(0);
    expect(after.find(100)).toBe(UNTRACKED);
    expect(after.size).toBe(1);
  });

  test('says so once it could not track an open', () => {
    const table = new OpenTable(memory(1));
    table.opened(table.take(1, 0), 1, 0);
    expect(table.overflown).toBe(false);
    expect(table.take(2, 0)).toBe(UNTRACKED);
    expect(table.overflown).toBe(true);
  });

  test('ignores handles it never gave', () => {
    const table = new OpenTable(memory(2));
    for (const slot of [-1, 1, 2, 1e9]) expect(table.released(slot, 9, 9)).toBe(0);
  });

  test('refuses what another version has written, and leaves it to that version', () => {
    const bytes = memory(4);
    const table = new OpenTable(bytes);
    table.session = { minor: 45, flags: -5, flags2: 0x1a0 };
    new DataView(bytes.buffer).setUint32(4, 2, true);
    for (const foreign of [bytes, memory(2).fill(0xff)]) {
      const before = foreign.slice();
      expect(() => new OpenTable(foreign)).toThrow('another version of imgcred');
      expect(foreign).toEqual(before);
    }
  });
});
