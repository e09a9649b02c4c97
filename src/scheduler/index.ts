export * from './scheduler.ts';
export { workerRoutes } from './worker-routes.ts';
