export { type FoundMountServer, findOrStartMountServer, MountClient } from './client.ts';
export { chooseDriver, type DriverChoice } from './driver.ts';
export type { MountRequest, MountServerSettings, MountStats, MountView } from './messages.ts';
export { runMountServer } from './server.ts';
