"""The whole loop on one machine: a control plane, three boxes and a phone as processes of their own, and a story."""
