import { z } from 'zod';
import type { Digest, Platform } from '../reference/index.ts';
import { isDigest } from '../reference/index.ts';
import { checked, parseJson } from './manifest.ts';

/** How the image wants its process to be started. */
export interface ImageProcess {
  readonly user: string;
  readonly env: readonly string[];
  readonly entrypoint: readonly string[];
  readonly cmd: readonly string[];
  readonly workingDir: string;
  readonly stopSignal?: string;
  readonly labels: Readonly<Record<string, string>>;
  readonly volumes: readonly string[];
  readonly exposedPorts: readonly string[];
}

/** The part of an image's configuration that a run needs; the rest stays in the raw bytes. */
export interface ImageConfig {
  readonly platform: Platform;
  readonly created?: string;
  readonly process: ImageProcess;
  /** Digests of the layers' uncompressed tars, lowest layer first. */
  readonly diffIds: readonly Digest[];
}

const strings = z
  .array(z.string())
  .nullish()
  .transform((list) => list ?? []);
const text = z
  .string()
  .nullish()
  .transform((value) => value ?? '');
const names = z
  .record(z.string(), z.unknown())
  .nullish()
  .transform((record) => Object.keys(record ?? {}));

const processSchema = z.object({
  User: text,
  Env: strings,
  Entrypoint: strings,
  Cmd: strings,
  WorkingDir: text,
  StopSignal: text,
  Labels: z
    .record(z.string(), z.string())
    .nullish()
    .transform((labels) => labels ?? {}),
  Volumes: names,
  ExposedPorts: names,
});

const configSchema = z.object({
  architecture: text,
  os: text,
  variant: text,
  created: z.string().nullish(),
  config: processSchema.nullish(),
  rootfs: z.object({
    type: z.literal('layers'),
    diff_ids: z.array(z.string().refine(isDigest, 'not a sha256 or sha512 digest')).nullish(),
  }),
});

/**
 * Reads an image's configuration. Builders write `null` for what is empty: that is taken as absent.
 *
 * @throws CorruptError, NotAnImageError
 * @see https://github.com/opencontainers/image-spec/blob/main/config.md
 */
export function parseImageConfig(bytes: Uint8Array, name: string): ImageConfig {
  const raw = checked(configSchema, parseJson(bytes, name), name);
  const process = raw.config ?? processSchema.parse({});
  return {
    platform: {
      os: raw.os,
      architecture: raw.architecture,
      ...(raw.variant === '' ? {} : { variant: raw.variant }),
    },
    ...(raw.created === undefined ? {} : { created: raw.created }),
    process: {
      user: process.User,
      env: process.Env,
      entrypoint: process.Entrypoint,
      cmd: process.Cmd,
      workingDir: process.WorkingDir,
      ...(process.StopSignal === '' ? {} : { stopSignal: process.StopSignal }),
      labels: process.Labels,
      volumes: process.Volumes,
      exposedPorts: process.ExposedPorts,
    },
    diffIds: raw.rootfs.diff_ids ?? [],
  };
}
