export {
  type ContainerRuntime,
  findRuntime,
  type HostFacts,
  isCapability,
  isSignal,
  livingProcesses,
  readHostFacts,
} from './containers/index.ts';
export { checkHost } from './host-check.ts';
export { leavesMounts } from './host-mounts.ts';
export { HttpWorkerLink } from './http-worker-link.ts';
export { loadIdentityKey } from './identity-key.ts';
export { LoneWorkerApi } from './lone-worker-api.ts';
export { WorkerNode } from './node-services.ts';
export { startUserMountServer } from './user-mounts.ts';
export { Worker, type WorkerOptions } from './worker.ts';
export { workerName } from './worker-identity.ts';
