/**
 * Brings what the tests need from the Go module proxy: the original ko, crane, the sources of Knative Serving, and a
 * Kubernetes API server with its etcd. Says on stderr what it builds.
 *
 * Into the cache folder of the tests and the Go module cache; nothing is done when all is there.
 *
 * usage: bun .ci/setup.ts [--node]   with what `npm run test:cluster` needs
 */
import {
  CLUSTER_PROGRAMS,
  findKnativeModule,
  installClusterPrograms,
  installGoPrograms,
  KNATIVE,
} from "../test/helpers/counterparts.ts";

if (import.meta.main) {
  await installGoPrograms();
  await installClusterPrograms(CLUSTER_PROGRAMS.server);
  if (process.argv.includes("--node")) await installClusterPrograms(CLUSTER_PROGRAMS.node);
  if (findKnativeModule() === undefined) throw new Error(`${KNATIVE} cannot be downloaded`);
}
