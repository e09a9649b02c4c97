export * from './api.ts';
export * from './change-signals.ts';
export * from './container-report.ts';
export * from './container-request.ts';
export * from './node-services.ts';
export * from './sealing.ts';
export * from './wire.ts';
export * from './worker-link.ts';
