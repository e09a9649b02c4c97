import { describe, expect, test } from 'bun:test';
import { parseImageConfig } from '../../../src/registry/index.ts';
import { parseManifest } from '../../../src/registry/manifest.ts';

const OCI_MANIFEST = 'application/vnd.oci.image.manifest.v1+json';
const OCI_INDEX = 'application/vnd.oci.image.index.v1+json';
const DOCKER_MANIFEST = 'application/vnd.docker.distribution.manifest.v2+json';
const DOCKER_LIST = 'application/vnd.docker.distribution.manifest.list.v2+json';
const digest = `sha256:${'a'.repeat(64)}`;
const descriptor = { mediaType: 'application/vnd.oci.image.config.v1+json', digest, size: 2 };
const manifest = { schemaVersion: 2, config: descriptor, layers: [] };
const index = { schemaVersion: 2, manifests: [] };
const bytes = (json: unknown) =>
  new TextEncoder().encode(typeof json === 'string' ? json : JSON.stringify(json));

describe('parseManifest', () => {
  const read: [name: string, json: unknown, contentType: string | null, kind: string, mediaType: string][] = [
    ['an OCI manifest', { ...manifest, mediaType: OCI_MANIFEST }, OCI_MANIFEST, 'manifest', OCI_MANIFEST],
    [
      'a Docker manifest',
      { ...manifest, mediaType: DOCKER_MANIFEST },
      DOCKER_MANIFEST,
      'manifest',
      DOCKER_MANIFEST,
    ],
    ['an OCI index', { ...index, mediaType: OCI_INDEX }, OCI_INDEX, 'index', OCI_INDEX],
    ['a Docker list', { ...index, mediaType: DOCKER_LIST }, DOCKER_LIST, 'index', DOCKER_LIST],
    [
      'a manifest without a media type of its own',
      manifest,
      `${OCI_MANIFEST}; charset=utf-8`,
      'manifest',
      OCI_MANIFEST,
    ],
    ['an index under a content type that says nothing', index, 'application/json', 'index', OCI_INDEX],
    [
      'a manifest under text/plain',
      { ...manifest, mediaType: DOCKER_MANIFEST },
      'text/plain',
      'manifest',
      DOCKER_MANIFEST,
    ],
    [
      'null where nothing is',
      { ...manifest, annotations: null, layers: [{ ...descriptor, urls: null }] },
      null,
      'manifest',
      OCI_MANIFEST,
    ],
    [
      'a sha512 digest',
      { ...manifest, config: { ...descriptor, digest: `sha512:${'b'.repeat(128)}` } },
      null,
      'manifest',
      OCI_MANIFEST,
    ],
  ];
  for (const [name, json, contentType, kind, mediaType] of read) {
    test(`reads ${name}`, () => {
      const parsed = parseManifest(bytes(json), contentType, 'x');
      expect(parsed.kind as string).toBe(kind);
      expect(parsed.kind === 'index' ? parsed.index.mediaType : parsed.manifest.mediaType).toBe(mediaType);
    });
  }

  const refused: [name: string, json: unknown, contentType: string | null, code: string, message: RegExp][] =
    [
      ['schema 1', { schemaVersion: 1, fsLayers: [] }, null, 'NOT_AN_IMAGE', /schema 1/],
      [
        'schema 1 by its content type',
        { name: 'x' },
        'application/vnd.docker.distribution.manifest.v1+prettyjws',
        'NOT_AN_IMAGE',
        /schema 1/,
      ],
      ['a document that is both kinds', { ...manifest, ...index }, OCI_MANIFEST, 'CORRUPT', /at once/],
      [
        'a contradiction of content type and body',
        { ...manifest, mediaType: OCI_MANIFEST },
        OCI_INDEX,
        'CORRUPT',
        /says that it is/,
      ],
      [
        'an index that says it is a manifest',
        { ...index, mediaType: OCI_MANIFEST },
        null,
        'NOT_AN_IMAGE',
        /not an image manifest/,
      ],
      [
        'another kind of document',
        { ...manifest, mediaType: 'application/vnd.example+json' },
        null,
        'NOT_AN_IMAGE',
        /vnd\.example/,
      ],
      ['a web page', '<html>', 'text/html', 'NOT_AN_IMAGE', /not JSON/],
      ['a list', [], null, 'NOT_AN_IMAGE', /not an image manifest/],
      ['an empty object', {}, null, 'NOT_AN_IMAGE', /not an image manifest/],
      [
        'an unknown digest algorithm',
        { ...manifest, config: { ...descriptor, digest: `md5:${'a'.repeat(32)}` } },
        null,
        'CORRUPT',
        /config\.digest/,
      ],
      [
        'a digest that leaves its directory',
        { ...manifest, config: { ...descriptor, digest: 'sha256:../../etc' } },
        null,
        'CORRUPT',
        /config\.digest/,
      ],
      [
        'a negative size',
        { ...manifest, config: { ...descriptor, size: -1 } },
        null,
        'CORRUPT',
        /config\.size/,
      ],
      [
        'a size that is no whole number',
        { ...manifest, config: { ...descriptor, size: 1.5 } },
        null,
        'CORRUPT',
        /config\.size/,
      ],
      ['layers that are no list', { ...manifest, layers: {} }, null, 'CORRUPT', /layers/],
    ];
  for (const [name, json, contentType, code, message] of refused) {
    test(`refuses ${name}`, () => {
      const parse = () => parseManifest(bytes(json), contentType, 'x');
      expect(parse).toThrow(message);
      expect(parse).toThrow(expect.objectContaining({ code }));
    });
  }
});

describe('parseImageConfig', () => {
  const config = (json: unknown) => parseImageConfig(bytes(json), 'x');
  const rootfs = { type: 'layers', diff_ids: [digest] };

  test('reads what a run needs', () => {
    const { process, platform, diffIds } = config({
      architecture: 'arm',
      os: 'linux',
      variant: 'v7',
      config: {
        User: '1000:1000',
        Env: ['A=b'],
        Entrypoint: ['/init'],
        Cmd: ['x'],
        WorkingDir: '/srv',
        StopSignal: 'SIGINT',
        Labels: { l: 'v' },
        Volumes: { '/data': {} },
        ExposedPorts: { '80/tcp': {} },
      },
      rootfs,
    });
    expect(platform).toEqual({ os: 'linux', architecture: 'arm', variant: 'v7' });
    expect(diffIds.map(String)).toEqual([digest]);
    expect(process).toEqual({
      user: '1000:1000',
      env: ['A=b'],
      entrypoint: ['/init'],
      cmd: ['x'],
      workingDir: '/srv',
      stopSignal: 'SIGINT',
      labels: { l: 'v' },
      volumes: ['/data'],
      exposedPorts: ['80/tcp'],
    });
  });

  test('takes null for nothing, as builders write it', () => {
    const nulls = { User: null, Env: null, Entrypoint: null, Cmd: null, Labels: null, Volumes: null };
    const { process, diffIds } = config({
      os: 'linux',
      architecture: 'amd64',
      config: nulls,
      rootfs: { type: 'layers', diff_ids: null },
    });
    expect(process).toEqual({
      user: '',
      env: [],
      entrypoint: [],
      cmd: [],
      workingDir: '',
      labels: {},
      volumes: [],
      exposedPorts: [],
    });
    expect(diffIds).toEqual([]);
    expect(config({ rootfs }).process.env).toEqual([]);
  });

  test('refuses a wrong form, and names the field', () => {
    expect(() => config({ config: { Env: 'A=b' }, rootfs })).toThrow(/config\.Env/);
    expect(() => config({ rootfs: { type: 'layers', diff_ids: ['sha256:x'] } })).toThrow(/rootfs\.diff_ids/);
    expect(() => config({})).toThrow(/rootfs/);
  });
});
