"""Stock of tickets: where it is read (`http`, `sql`, `prometheus`, `counted`), its levels, milestones and sales."""
