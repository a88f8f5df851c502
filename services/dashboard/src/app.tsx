import { Suspense, lazy } from "react";
import { Route, Routes } from "react-router";
import { Home } from "./pages/home";
import { Runs } from "./pages/runs";
import { Layout } from "./parts/layout";
import { Empty, Loading } from "./parts/states";

// The graph and the charts are large: pages come when they are asked for.
const Run = lazy(() => import("./pages/run").then((page) => ({ default: page.Run })));
const Experiments = lazy(() => import("./pages/experiments").then((page) => ({ default: page.Experiments })));
const Experiment = lazy(() => import("./pages/experiment").then((page) => ({ default: page.Experiment })));
const Models = lazy(() => import("./pages/models").then((page) => ({ default: page.Models })));
const Model = lazy(() => import("./pages/model").then((page) => ({ default: page.Model })));
const Notebooks = lazy(() => import("./pages/notebooks").then((page) => ({ default: page.Notebooks })));

export function App() {
  return (
    <Layout>
      <Suspense fallback={<Loading />}>
        <Routes>
          <Route path="/" element={<Home />} />
          <Route path="/runs" element={<Runs />} />
          <Route path="/runs/:id" element={<Run />} />
          <Route path="/experiments" element={<Experiments />} />
          <Route path="/experiments/:name" element={<Experiment />} />
          <Route path="/models" element={<Models />} />
          <Route path="/models/:name" element={<Model />} />
          <Route path="/notebooks" element={<Notebooks />} />
          <Route path="*" element={<Empty title="No such page" text="The address may be mistyped." />} />
        </Routes>
      </Suspense>
    </Layout>
  );
}
