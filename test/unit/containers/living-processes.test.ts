import { afterEach, beforeEach, expect, test } from 'bun:test';
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import {
  identifyProcess,
  livingProcesses,
  refuseUnknownSupervisors,
} from '../../../src/worker/containers/index.ts';

let directory: string;
beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), 'imgcred-living-'));
});
afterEach(() => rmSync(directory, { recursive: true, force: true }));

function containerWith(state: object): void {
  mkdirSync(join(directory, 'c1'));
  const whole = { status: 'running', supervisor: identifyProcess(process.pid), ...state };
  writeFileSync(join(directory, 'c1', 'state.json'), JSON.stringify(whole));
}

test('a supervisor that says nothing of its control version is of the first', () => {
  containerWith({});
  refuseUnknownSupervisors(directory);
  expect(livingProcesses(directory)).toEqual([process.pid]);
});

test('a supervisor of another control version is refused while it runs', () => {
  containerWith({ control: 2 });
  expect(() => refuseUnknownSupervisors(directory)).toThrow('another version of imgcred');
});

test('a supervisor of another control version that has ended is of no concern', () => {
  containerWith({ control: 2, supervisor: { ...identifyProcess(process.pid), startTime: 1 } });
  refuseUnknownSupervisors(directory);
  expect(livingProcesses(directory)).toEqual([]);
});

test('no containers, no supervisors', () => {
  refuseUnknownSupervisors(join(directory, 'missing'));
  expect(livingProcesses(join(directory, 'missing'))).toEqual([]);
});
