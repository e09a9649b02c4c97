import { describe, expect, test } from 'bun:test';
import {
  ALL_CAPABILITIES,
  capabilitiesOfMask,
  capabilitySets,
  DEFAULT_CAPABILITIES,
} from '../../../src/worker/containers/capabilities.ts';
import { commandLine } from '../../../src/worker/containers/command-line.ts';
import { environment } from '../../../src/worker/containers/environment.ts';
import { signalName, signalNumber } from '../../../src/worker/containers/signals.ts';

describe('the command line', () => {
  const image = { Entrypoint: ['/entry', '-e'], Cmd: ['default'] };
  test.each([
    ['is the image’s entrypoint and command', image, {}, ['/entry', '-e', 'default']],
    ['takes a given command for the image’s', image, { command: ['a', 'b'] }, ['/entry', '-e', 'a', 'b']],
    ['drops the image’s command with its entrypoint', image, { entrypoint: ['/x'] }, ['/x']],
    ['takes both when given', image, { entrypoint: ['/x'], command: ['y'] }, ['/x', 'y']],
    ['has no entrypoint when it is cleared', image, { entrypoint: [''], command: ['y'] }, ['y']],
    ['keeps the image’s command when the entrypoint is emptied', image, { entrypoint: [] }, ['default']],
    ['is the command alone in an image without entrypoint', { Cmd: ['/bin/sh'] }, {}, ['/bin/sh']],
    ['takes null for absent', { Entrypoint: null, Cmd: null }, { command: ['x'] }, ['x']],
  ])('%s', (_, config, options, expected) => {
    expect(commandLine(config, options)).toEqual(expected);
  });

  test.each([
    ['nothing at all', {}, {}],
    ['a cleared entrypoint alone', image, { entrypoint: [''] }],
    ['a NUL byte', image, { command: ['a\0b'] }],
  ])('can’t be %s', (_, config, options) => {
    expect(() => commandLine(config, options)).toThrow(expect.objectContaining({ code: 'INVALID_INPUT' }));
  });
});

describe('the environment', () => {
  const facts = { hostname: 'box', home: '/home/app' };

  test('is ours, then the image’s, then what was given', () => {
    const image = { Env: ['PATH=/image', 'A=image', 'A=image again', 'EMPTY', 'EQ=a=b', '=broken'] };
    expect(environment(image, { env: { B: 'given', EQ: 'x' } }, facts)).toEqual([
      'PATH=/image',
      'TERM=xterm',
      'container=imgcred',
      'HOSTNAME=box',
      'HOME=/home/app',
      'A=image again',
      'EMPTY=',
      'EQ=x',
      'B=given',
    ]);
  });

  test('has a PATH, a HOME and a HOSTNAME of its own where nobody sets them', () => {
    expect(environment({}, { env: { HOME: '/mine' } }, facts)).toEqual([
      'PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin',
      'TERM=xterm',
      'container=imgcred',
      'HOSTNAME=box',
      'HOME=/mine',
    ]);
  });

  test.each(['', 'A=B', 'A\0'])('refuses the name %j', (name) => {
    expect(() => environment({}, { env: { [name]: 'x' } }, facts)).toThrow(/environment variable/);
  });

  test('does not show the value that it refuses', () => {
    expect(() => environment({}, { env: { KEY: 'hidden\0' } }, facts)).not.toThrow(/hidden/);
  });
});

describe('signals', () => {
  test.each([
    ['SIGTERM', 15],
    ['term', 15],
    ['15', 15],
    [9, 9],
    ['SIGRTMIN+3', 37],
    ['RTMAX', 64],
    ['rtmax-1', 63],
    ['SIGWINCH', 28],
  ])('%p is number %d', (signal, number) => {
    expect(signalNumber(signal)).toBe(number);
  });

  test.each(['', 'NOPE', '0', '65', '-1', 'RTMIN-1', 'RTMIN+31'])('%p is none', (signal) => {
    expect(() => signalNumber(signal)).toThrow(/unknown signal/);
  });

  test('are named for people', () => {
    expect([signalName(9), signalName(37), signalName(15)]).toEqual(['SIGKILL', 'SIGRTMIN+3', 'SIGTERM']);
  });
});

describe('capabilities', () => {
  const available = new Set(ALL_CAPABILITIES);
  const sets = (options: Partial<Parameters<typeof capabilitySets>[0]>) =>
    capabilitySets({ add: [], drop: [], uid: 0, available, ...options });

  test('there are 41, and a mask names them', () => {
    expect(ALL_CAPABILITIES).toHaveLength(41);
    expect([...capabilitiesOfMask('00000000800405fb')].sort()).toEqual([...DEFAULT_CAPABILITIES].sort());
  });

  test('are podman’s eleven for root', () => {
    const { bounding, effective, permitted, inheritable, ambient } = sets({});
    expect([...bounding].sort()).toEqual([...DEFAULT_CAPABILITIES].sort());
    expect([effective, permitted]).toEqual([bounding, bounding]);
    expect([inheritable, ambient]).toEqual([[], []]);
  });

  test('are none for another user but those that were added', () => {
    expect(sets({ uid: 5 }).effective).toEqual([]);
    expect(sets({ uid: 5, add: ['net_raw'] })).toMatchObject({
      effective: ['CAP_NET_RAW'],
      ambient: ['CAP_NET_RAW'],
      inheritable: ['CAP_NET_RAW'],
    });
  });

  test.each([
    [{ drop: ['ALL'] }, []],
    [{ drop: ['all'], add: ['CAP_CHOWN'] }, ['CAP_CHOWN']],
    [{ add: ['ALL'], drop: ['SYS_ADMIN'] }, ALL_CAPABILITIES.filter((name) => name !== 'CAP_SYS_ADMIN')],
  ])('%j gives what it says', (options, expected) => {
    expect(sets(options).bounding).toEqual(expected);
  });

  test('that the host lacks are left out of the default, and refused when asked for', () => {
    const few = new Set(['CAP_CHOWN', 'CAP_KILL']);
    expect(sets({ available: few }).bounding).toEqual(['CAP_CHOWN', 'CAP_KILL']);
    expect(() => sets({ available: few, add: ['SYS_ADMIN'] })).toThrow(/this host does not have it/);
  });

  test.each([[{ add: ['NOPE'] }], [{ drop: ['cap_nope'] }], [{ add: ['KILL'], drop: ['KILL'] }]])(
    '%j is refused',
    (options) => {
      expect(() => sets(options)).toThrow(expect.objectContaining({ code: 'INVALID_INPUT' }));
    },
  );
});
