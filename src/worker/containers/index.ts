export { Attachment, type OutputChunk } from './attachment.ts';
export { isCapability } from './capabilities.ts';
export type { ContainerStats } from './cgroup-stats.ts';
export { cleanContainer } from './clean-container.ts';
export {
  adoptContainer,
  Container,
  type ContainerStatus,
  type CreateContainerOptions,
  createContainer,
  DEFAULT_CGROUP_PARENT,
} from './container.ts';
export type { ContainerExit, ExitReason } from './container-files.ts';
export { DEFAULT_LOG_ROTATION, type LogRecord, type LogRotation, type LogStream } from './container-log.ts';
export type {
  ContainerMount,
  ContainerOptions,
  ExecOptions,
  ImageProcessConfig,
  NetworkMode,
  ResourceLimit,
  ResourceLimits,
  TerminalSize,
} from './container-options.ts';
export type { ContainerSecret } from './container-secrets.ts';
export { ContainerError, ContainerInputError, ContainerStartError, NotInImageError } from './errors.ts';
export { type HostFacts, prepareCgroups, readHostFacts } from './host-facts.ts';
export { livingProcesses, refuseUnknownSupervisors } from './living-processes.ts';
export { mountOverlay, overlayOptions } from './overlay.ts';
export { identifyProcess, isRunning } from './process-identity.ts';
export type { ReadLogsOptions, StoredLogRecord } from './read-logs.ts';
export { type ContainerRuntime, findRuntime } from './runtime.ts';
export { buildRuntimeSpec, type RuntimeSpec, type RuntimeSpecInput } from './runtime-spec.ts';
export { isSignal } from './signals.ts';
export { SpareSupervisors } from './spare-supervisors.ts';
